"""Keytoll on an application's own database, side by side with the application: SQLAlchemy and Alembic on the same file."""

import sqlite3
from datetime import timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Column, String, create_engine, select, text, update
from sqlalchemy.orm import Session

from models import APIKey, Base, User, Wallet, customer, now
from stage import Gateway, Traffic, doctor, keytoll

PRICE = 2


@pytest.fixture
def database(tmp_path):
    return tmp_path / "auth.db"


@pytest.fixture
def engine(database):
    """The application's, as it comes: default pool, default 5 s timeout."""
    engine = create_engine(f"sqlite:///{database}")
    yield engine
    engine.dispose()


@pytest.fixture
def serve(database, upstream):
    """Starts gateways; at the end each has to stop in order, and the books have to balance."""
    gateways = []

    def start(*flags):
        gateways.append(Gateway(database, upstream, *flags))
        return gateways[-1]

    yield start
    for gateway in gateways:
        gateway.stop()
    doctor(database)


def make_file(engine, *customers):
    """What the application had before Keytoll came."""
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(customers)
        session.commit()


def balance(engine, email):
    with Session(engine) as session:
        return session.scalars(select(User).where(User.email == email)).one().wallet.balance


def test_a_file_of_the_application_is_served_as_it_is(engine, serve, upstream):
    make_file(engine, customer("ada@example.com", "ada-key"), customer("bob@example.com", "bob-key", balance=1))
    gateway = serve()

    assert gateway.get("ada-key").status == 200
    assert balance(engine, "ada@example.com") == 500 - PRICE

    assert gateway.get("bob-key").code == "insufficient-funds"
    assert gateway.get("no-key").code == "invalid-key"
    assert gateway.get("ada-key", "/status/503").status == 503
    assert balance(engine, "ada@example.com") == 500 - PRICE
    assert balance(engine, "bob@example.com") == 1
    assert upstream.served == 2


def test_a_file_of_keytoll_is_the_applications_too(database, engine, serve):
    gateway = serve("--create")
    here = {"cwd": database.parent}
    added = keytoll("user", "add", "ada@example.com", "--name", "Ada", "--database", database, **here)
    assert added.returncode == 0, added.stderr
    issued = keytoll("key", "issue", "--user", "ada@example.com", "--api", "weather", "--database", database, **here)
    assert issued.returncode == 0, issued.stderr
    key = issued.stdout.strip()
    assert gateway.get_until(200, key).balance_cents == 500 - PRICE

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        ada = session.scalars(select(User)).one()
        assert (ada.email, ada.name, ada.is_active, ada.wallet.balance) == ("ada@example.com", "Ada", True, 500 - PRICE)
        (row,) = ada.api_keys
        assert row.user is ada and row.api_name == "weather" and row.is_active is True
        assert row.key.startswith("sha256:") and key not in row.key
        assert abs(now() - row.created_at) < timedelta(minutes=5)

        ada.name = "Ada Lovelace"
        ada.wallet.balance = Wallet.balance + 100
        ada.api_keys.append(APIKey(key="ada-maps-key", api_name="maps"))
        session.add(customer("bob@example.com", "bob-key", balance=10))
        session.commit()

    assert gateway.get(key).balance_cents == 500 - PRICE + 100 - PRICE
    assert gateway.get("bob-key").balance_cents == 10 - PRICE
    assert gateway.get("ada-maps-key").code == "wrong-api"


def test_a_file_of_keytoll_has_the_schema_of_the_models(database, engine, serve):
    serve("--create")

    # The snippet of the README.
    def include_object(thing, name, type_, reflected, compare_to):
        return not (type_ == "table" and name.startswith("keytoll_"))

    with engine.connect() as connection:
        options = {"include_object": include_object, "compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_the_application_changes_anything_while_traffic_flows(engine, serve):
    make_file(
        engine,
        customer("ada@example.com", "ada-key", balance=1_000_000),
        customer("bob@example.com", "bob-key"),
        customer("eve@example.com", "eve-key"),
    )
    gateway = serve()
    traffic = Traffic(gateway, ["ada-key"] * 2)

    # A new customer: good at once, also with a key that was refused before.
    assert gateway.get("cleo-key").code == "invalid-key"
    with Session(engine) as session:
        session.add_all([customer("cleo@example.com", "cleo-key"), customer("dan@example.com", "dan-key")])
        session.commit()
    assert gateway.get("dan-key").balance_cents == 500 - PRICE
    assert gateway.get_until(200, "cleo-key").balance_cents == 500 - PRICE

    # Top-ups of the wallet that everybody is drawing from.
    for _ in range(20):
        with Session(engine) as session:
            ada = select(User.id).where(User.email == "ada@example.com").scalar_subquery()
            session.execute(update(Wallet).where(Wallet.user_id == ada).values(balance=Wallet.balance + 500))
            session.commit()

    # A revoked key: the next request is refused.
    assert gateway.get("eve-key").status == 200
    with Session(engine) as session:
        session.scalars(select(APIKey).where(APIKey.key == "eve-key")).one().is_active = False
        session.commit()
    assert gateway.get("eve-key").code == "inactive-key"

    # An absolute balance, whatever was there.
    assert gateway.get("bob-key").balance_cents == 500 - PRICE
    with Session(engine) as session:
        bob = session.scalars(select(User).where(User.email == "bob@example.com")).one()
        bob.wallet.balance = 1_000
        session.commit()
    assert gateway.get("bob-key").balance_cents == 1_000 - PRICE

    counts = traffic.stop()
    assert all(set(count) == {200} for count in counts), counts
    paid = sum(count[200] for count in counts)
    assert balance(engine, "ada@example.com") == 1_000_000 + 20 * 500 - paid * PRICE


def test_the_application_never_fails_to_write_beside_full_load(engine, serve):
    keys = [f"key-{number}" for number in range(8)]
    make_file(engine, *(customer(f"user{n}@example.com", key, 10_000_000) for n, key in enumerate(keys)))
    traffic = Traffic(serve(), keys)

    for number in range(100):
        with Session(engine) as session:
            user = session.scalars(select(User).where(User.email == f"user{number % 8}@example.com")).one()
            user.name = f"Name {number}"
            user.wallet.balance = Wallet.balance + 1
            session.commit()

    counts = traffic.stop()
    assert all(set(count) == {200} for count in counts), counts


def test_a_table_that_alembic_rebuilds_is_billed_from_again(engine, serve):
    make_file(engine, customer("ada@example.com", "ada-key", balance=1_000_000))
    gateway = serve()
    traffic = Traffic(gateway, ["ada-key"] * 2)

    def triggers():
        with engine.connect() as connection:
            named = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'keytoll_%' ORDER BY name"
            return connection.execute(text(named)).scalars().all()

    before = triggers()
    assert before
    with engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table("wallets", recreate="always") as batch:
            batch.add_column(Column("currency", String))
        # A change that no trigger is there to note.
        connection.execute(text("UPDATE wallets SET balance = balance + 100"))

    # A request that was answered was billed in a batch that saw the rebuild.
    assert gateway.get("ada-key").status == 200
    assert triggers() == before
    counts = traffic.stop()
    assert all(set(count) == {200} for count in counts), counts
    paid = sum(count[200] for count in counts) + 1
    assert balance(engine, "ada@example.com") == 1_000_000 + 100 - paid * PRICE

    # And the application's own changes are noted again.
    with Session(engine) as session:
        session.execute(update(Wallet).values(balance=Wallet.balance + 7))
        session.commit()
    assert gateway.get("ada-key").balance_cents == 1_000_000 + 100 - (paid + 1) * PRICE + 7


def test_while_a_table_is_away_nothing_is_served_and_nothing_costs(engine, serve, upstream):
    make_file(engine, customer("ada@example.com", "ada-key"))
    gateway = serve()
    assert gateway.get("ada-key").status == 200

    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE wallets RENAME TO put_away"))
    assert gateway.get("ada-key").code == "billing-unavailable"
    assert upstream.served == 1

    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE put_away RENAME TO wallets"))
    assert gateway.get_until(200, "ada-key").balance_cents == 500 - 2 * PRICE


def test_a_file_that_is_held_in_rollback_mode_is_refused(database, engine, upstream):
    make_file(engine, customer("ada@example.com", "ada-key"))
    holder = sqlite3.connect(database, isolation_level=None)
    try:
        assert holder.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
        holder.execute("BEGIN IMMEDIATE")
        flags = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--upstream", upstream.url]
        refused = keytoll("serve", *flags, "--api", "weather", "--price", 2, "--database", database, cwd=database.parent)
    finally:
        holder.close()
    assert refused.returncode == 66, refused.stderr
    assert "another program" in refused.stderr, refused.stderr
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "delete"
