"""A gateway whose file has many keys, wallets and charges, made in bulk, and books that count what every run added."""

import hashlib
import random
import sqlite3
import time
import urllib.request
import zlib

import measure
from processes import Keytoll

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KEY_LENGTH = len("kt_") + 30 + 6
BALANCE_CENTS = 10**12
# The charges that stand in the file beforehand are spread over so many days, all of them younger than they are kept.
CHARGE_DAYS = 30
DAY_MS = 86_400_000
BOOKS_SECONDS = 120


def issued_key(chance):
    """A key of the shape that Keytoll issues, with its check characters (docs: `src/model/api_key.rs`)."""
    signed = "kt_" + "".join(chance.choices(ALPHABET, k=30))
    check, rest = "", zlib.crc32(signed.encode())
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        check = ALPHABET[digit] + check
    return signed + check


class Gateway(Keytoll):
    """Keytoll on a file with `count` keys, each of a user with a wallet of its own; started and stopped many times."""

    start_seconds = 120

    def __init__(self, name, upstream_port, directory, core, count, charges, price_cents, settings, workers):
        self.count, self.price_cents, self.settings, self.workers = count, price_cents, settings, workers
        super().__init__(name, upstream_port, directory, core)
        self.keys_file = self.directory / "keys"
        # Charges that must be on the books, and how long the last start took.
        self.counted = self.seconds = 0
        self.add_keys()
        if charges:
            self.start()
            self.stop()
            self.counted = 1  # A start asks once.
            self.add_charges(charges)

    def environment(self):
        return {**super().environment(), **self.settings}

    def start(self):
        begun = time.monotonic()
        super().start()
        self.seconds = time.monotonic() - begun

    def keys(self, in_use, in_turn=False, start=None):
        start = random.randrange(in_use) if start is None else start
        return measure.Keys(self.keys_file, KEY_LENGTH, in_use, in_turn, start)

    def metric(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics") as reply:
            lines = reply.read().decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])

    def wait_for_books(self):
        """Until what came since the last run is in the sums, and all wallets were compared with them."""
        deadline = time.monotonic() + BOOKS_SECONDS
        while not self.metric("keytoll_books_checked_timestamp_seconds"):
            if time.monotonic() > deadline:
                raise SystemExit(f"{self.name}: the books were not compared within {BOOKS_SECONDS} s")
            time.sleep(0.1)
        if self.metric("keytoll_books_unbalanced_users"):
            raise SystemExit(f"{self.name}: the books do not balance")

    def check(self, served):
        """`served`: since the last check; the file keeps what came before."""
        self.counted += served
        super().check(self.counted)

    def connection(self):
        connection = sqlite3.connect(self.database, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    def add_keys(self):
        """As the application would: users, wallets and keys, so that the triggers note the wallets."""
        chance = random.Random(self.count)
        keys = [issued_key(chance) for _ in range(self.count)]
        self.keys_file.write_text("".join(f"{key}\n" for key in keys))
        ids = range(2, self.count + 2)
        stored = (f"sha256:{hashlib.sha256(key.encode()).hexdigest()}" for key in keys)
        connection = self.connection()
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO users (id, email, name, is_active) VALUES (?1, ?2, 'Customer', 1)",
            ((number, f"customer{number}@example.com") for number in ids))
        connection.executemany(
            f"INSERT INTO wallets (user_id, balance) VALUES (?1, {BALANCE_CENTS})", ((number,) for number in ids))
        connection.executemany(
            """INSERT INTO api_keys ("key", user_id, api_name, is_active, created_at)
               VALUES (?1, ?2, 'weather', 1, '2026-01-01 00:00:00.000000')""", zip(stored, ids))
        connection.execute("COMMIT")
        connection.close()

    def add_charges(self, count):
        """Captured charges of the last days, evenly over all accounts; a credit to each pays for them, so that the books
        balance and no wallet changes. To be added while no gateway runs, after one has opened the accounts."""
        connection = self.connection()
        connection.execute("BEGIN")
        accounts, = connection.execute("SELECT count(*) FROM keytoll_accounts").fetchone()
        first, = connection.execute("SELECT value FROM keytoll_meta WHERE name = 'next_charge_id'").fetchone()
        key_of_route, = connection.execute("SELECT min(id) FROM keytoll_routes").fetchone()
        position, = connection.execute("SELECT coalesce(max(position), 0) + 1 FROM keytoll_charges").fetchone()
        each = -(-count // accounts)
        begun_ms = int(time.time() * 1000) - CHARGE_DAYS * DAY_MS
        connection.execute(
            """WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < ?1)
               INSERT INTO keytoll_charges
                 (position, id, account_id, key_id, route_id, cents, state, held_at, settled_at, status)
               SELECT ?5 + n, ?2 + n, 1 + n % ?3, 1 + n % ?3, ?4, ?6, 1, ?7 + n * ?8 / ?1, ?7 + n * ?8 / ?1 + 3, 200 FROM n""",
            (each * accounts, first, accounts, key_of_route, position, self.price_cents, begun_ms, (CHARGE_DAYS - 1) * DAY_MS))
        connection.execute(
            """INSERT INTO keytoll_entries (account_id, kind, amount_cents, note, created_at)
               SELECT id, 'credit', ?1, 'charges made beforehand', ?2 FROM keytoll_accounts""",
            (each * self.price_cents, begun_ms))
        connection.execute("UPDATE keytoll_meta SET value = ?1 WHERE name = 'next_charge_id'", (first + each * accounts,))
        connection.execute("COMMIT")
        connection.close()
        self.counted += each * accounts
