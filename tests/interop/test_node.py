"""Clients that send a body before they read: Node's own fetch sees why its upload was refused, and keeps its connection."""

import json
import pathlib
import subprocess

import pytest

from stage import DEADLINE, Gateway, doctor, keytoll

SCRIPT = pathlib.Path(__file__).with_name("uploads.mjs")
MIB = 1 << 20
TRIES = 4


@pytest.fixture
def gateway(tmp_path, upstream):
    database = tmp_path / "auth.db"
    gateway = Gateway(database, upstream, "--create")
    yield gateway
    gateway.stop()
    doctor(database)


def node(gateway, what, *arguments):
    """What the script prints, line by line."""
    command = ["node", str(SCRIPT), what, f"http://{gateway.address}/", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("size", [1 * MIB, 4 * MIB, 40 * MIB])
def test_fetch_sees_why_an_upload_was_refused(gateway, upstream, size):
    found = node(gateway, "refused", "no-such-key", size, TRIES)
    assert len(found) == 2 * TRIES
    assert [one.get("status", one) for one in found] == [401] * len(found)
    assert all(json.loads(one["text"])["code"] == "invalid-key" for one in found)
    assert upstream.served == 0


@pytest.mark.parametrize("size", [1, 1_000, 60_000])
def test_fetch_keeps_its_connection_after_a_small_upload_was_refused(gateway, tmp_path, upstream, size):
    here = {"cwd": tmp_path}
    database = tmp_path / "auth.db"
    assert keytoll("user", "add", "ada@example.com", "--name", "Ada", "--database", database, **here).returncode == 0
    key = keytoll("key", "issue", "--user", "ada@example.com", "--api", "weather", "--database", database, **here).stdout.strip()
    gateway.get_until(200, key)

    found = node(gateway, "reused", "no-such-key", key, size)
    assert [one.get("status", one) for one in found] == [401, 200] * 3
    # One more than needed: the first reply is read a moment before fetch takes its connection for free.
    assert found[-1]["connections"] <= 2, found
    assert upstream.served == 1 + 3
