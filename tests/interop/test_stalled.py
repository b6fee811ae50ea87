"""Clients that read slowly or not at all, in front of an upstream that does not wait for them."""

import re
import socket
import time

import pytest

from nginx import Nginx
from stage import Gateway, doctor, wait_until

SIZE = 20 << 20
#: Bytes a second of a client that reads slowly.
SLOW = 100_000
#: How long that client reads before the upstream breaks off.
SLOW_SECONDS = 5


@pytest.fixture
def scene(tmp_path):
    nginx = Nginx(tmp_path)
    (tmp_path / "files" / "large").write_bytes(b"x" * SIZE)
    database = tmp_path / "auth.db"
    gateway = Gateway(database, nginx, "--create")
    user = gateway.admin("POST", "/v1/users", {"email": "a@example.com", "name": "A", "opening_balance_cents": 10})
    key = gateway.admin("POST", f"/v1/users/{user['id']}/keys", {"api_name": "weather"})["key"]
    yield nginx, gateway, key, lambda: gateway.admin("GET", f"/v1/users/{user['id']}/wallet")["balance_cents"]
    gateway.stop()
    nginx.kill()
    doctor(database)


def request(gateway, key):
    host, _, port = gateway.address.rpartition(":")
    client = socket.create_connection((host, int(port)), timeout=60)
    client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\nX-API-Key: " + key.encode() + b"\r\n\r\n")
    return client


def read_rest(client):
    """Reads until the connection ends; how many bytes came."""
    count = 0
    try:
        while data := client.recv(1 << 16):
            count += len(data)
    except ConnectionResetError:
        pass
    return count


def assert_settled(gateway, balance, reason, cents):
    """Waits until the only request was settled so, and this is left in the wallet."""
    line = f'keytoll_settlements_total{{reason="{reason}"}} 1'
    wait_until(reason, lambda: line in gateway.metrics().body.decode())
    # A price goes back a moment after the reply has ended.
    wait_until(f"{cents} cents", lambda: balance() == cents)


def test_a_client_that_stalls_until_the_upstream_gives_up_pays(scene):
    nginx, gateway, key, balance = scene
    with request(gateway, key) as client:
        nginx.wait_for_send_timeout()
        assert read_rest(client) < SIZE
    assert_settled(gateway, balance, "client_stalled", 8)


def test_a_client_that_reads_slowly_does_not_pay_for_a_reply_that_the_upstream_breaks_off(scene):
    nginx, gateway, key, balance = scene
    with request(gateway, key) as client:
        begun = time.monotonic()
        count = 0
        while (passed := time.monotonic() - begun) < SLOW_SECONDS:
            if count <= passed * SLOW:
                count += len(client.recv(SLOW // 20))
            else:
                time.sleep(0.01)
        nginx.kill()
        assert count + read_rest(client) < SIZE
    assert_settled(gateway, balance, "released", 10)


def test_a_client_that_stalls_and_then_reads_to_the_end_pays_once(scene):
    _nginx, gateway, key, balance = scene
    with request(gateway, key) as client:
        assert client.recv(1, socket.MSG_PEEK)
        time.sleep(1)
        assert read_all(client) == SIZE
    assert_settled(gateway, balance, "captured", 8)


def read_all(client):
    """Reads one whole reply on a connection that is kept; the length of its body, which is its Content-Length."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = client.recv(1 << 16)
        assert data, received
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)[1])
    count = len(body)
    while count < length:
        data = client.recv(1 << 16)
        assert data, f"the reply ended after {count} of {length} bytes"
        count += len(data)
    assert count == length
    return count
