"""What the users of common clients see of a success, a refusal and an early answer, and what they pay.

The clients are the SDKs of OpenAI and Anthropic, httpx, aiohttp and Node's own fetch. Unless a test says otherwise, the SDKs
do not retry, so that the first answer is seen.
"""

import os
import sys
import uuid

import pytest

from clients import CLIENTS, SDKS, Anthropic, OpenAI
from model_api import ANSWER, TOO_LARGE, ModelApi
from stage import Gateway, doctor, wait_until

PRICE = 2
OPENING = 100
UPLOAD = 20_000_000
LIMIT = 20_500_000  # of a request's body: an upload and its multipart framing fit
TOO_LONG = 21_000_000
TRIES = 8  # of an early answer: what arrives must not depend on timing
CONFIG = """
[limits]
request_body_bytes = {limit}

[[api]]
name = "model"
path = "/"
upstreams = ["{upstream}"]
price_cents = {price}
"""
NO_SUCH_KEY = "There is no such API key; check it for typing errors."
NO_MONEY = "This request costs 2 cents and the wallet holds 1 cents; top it up."
BODY_TOO_LARGE = f"The request body is limited to {LIMIT} bytes."

each_client = pytest.mark.parametrize("make", CLIENTS, ids=lambda client: client.name)
each_sdk = pytest.mark.parametrize("make", SDKS, ids=lambda client: client.name)
each_blocking_sdk = pytest.mark.parametrize("make", [OpenAI, Anthropic], ids=lambda client: client.name)

_guard = {"on": False}


def _refuse_other_hosts(event, arguments):
    """While the guard is on, nothing looks up or connects to another host. An audit hook cannot be removed."""
    if not _guard["on"]:
        return
    host = None
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    if host is not None:
        host = host.decode() if isinstance(host, bytes) else host
        assert host == "127.0.0.1", f"a client asks for {host}"


sys.addaudithook(_refuse_other_hosts)


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch):
    """Clients without a proxy, telemetry, or options from this process's environment."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "ANTHROPIC_", "OTEL_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    _guard["on"] = True
    yield
    _guard["on"] = False


@pytest.fixture(scope="module")
def model_api():
    api = ModelApi()
    yield api
    api.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, model_api):
    directory = tmp_path_factory.mktemp("clients")
    config = directory / "keytoll.toml"
    config.write_text(CONFIG.format(limit=LIMIT, upstream=model_api.url, price=PRICE))
    gateway = Gateway(directory / "auth.db", model_api, "--create", config=config)
    yield gateway
    gateway.stop()
    doctor(directory / "auth.db")


class Account:
    """A new user with a key and a wallet, seen through the admin API."""

    def __init__(self, gateway, cents):
        self._gateway = gateway
        person = {"email": f"{uuid.uuid4()}@example.com", "name": "Ada", "opening_balance_cents": cents}
        self.id = gateway.admin("POST", "/v1/users", person)["id"]
        self.key = gateway.admin("POST", f"/v1/users/{self.id}/keys", {"api_name": "model"})["key"]
        self.opening = cents
        assert self.balance() == cents

    def balance(self):
        return self._gateway.admin("GET", f"/v1/users/{self.id}/wallet")["balance_cents"]

    def charges(self):
        """Waits until all holds are settled; the state, status and cents of each charge, in order."""
        wait_until("all holds are settled", lambda: "\nkeytoll_holds_open 0\n" in self._gateway.metrics().body.decode())
        rows = self._gateway.admin("GET", f"/v1/charges?user_id={self.id}")["data"]
        return [(row["state"], row["status"], row["cents"]) for row in sorted(rows, key=lambda row: row["id"])]

    def paid(self):
        """The charges, after a check that the balance agrees with them."""
        charges = self.charges()
        captured = sum(cents for state, _, cents in charges if state == "captured")
        assert self.balance() == self.opening - captured, charges
        return charges


@pytest.fixture
def account(gateway):
    return Account(gateway, OPENING)


@pytest.fixture
def poor(gateway):
    """An account with less than the price of a request."""
    return Account(gateway, PRICE - 1)


def url(gateway, behaviour=None):
    return f"http://{gateway.address}" + (f"/{behaviour}" if behaviour else "")


def mistyped(key):
    return key[:-1] + ("a" if key[-1] != "a" else "b")


def assert_explained(client, seen, status, explanation):
    """The user sees an error with this status, its explanation and the id of the request."""
    assert (seen.raised, seen.status) == (client.raises.get(status), status), seen
    assert explanation in seen.text, seen
    assert seen.request_id and seen.request_id == seen.headers["x-request-id"], seen


def assert_refused(client, seen, status, explanation):
    """The same, for a refusal by Keytoll itself without a charge."""
    assert_explained(client, seen, status, explanation)
    if client.shows_body:
        assert seen.request_id in seen.text, seen
    assert "keytoll-charge-id" not in seen.headers, seen


# A small request.


@each_client
def test_a_call_is_answered_and_charged_once(make, gateway, model_api, account):
    seen = make(url(gateway), account.key).call()
    assert (seen.raised, seen.status) == (None, 200), seen
    assert "".join(ANSWER) in seen.text
    assert model_api.requests[str(account.id)] == 1
    assert account.paid() == [("captured", 200, PRICE)]


# What Keytoll refuses, small or large.


def call(client):
    return client.call()


def upload(client):
    return client.upload(UPLOAD)


each_size = pytest.mark.parametrize("send", [call, upload])


@each_size
@each_client
def test_a_request_with_a_wrong_key_says_so_and_is_free(make, send, gateway, model_api, account):
    served = model_api.served
    client = make(url(gateway), mistyped(account.key))
    assert_refused(client, send(client), 401, NO_SUCH_KEY)
    assert model_api.served == served
    assert account.paid() == []


@each_size
@each_client
def test_a_request_that_the_wallet_cannot_pay_says_what_is_missing(make, send, gateway, model_api, poor):
    served = model_api.served
    client = make(url(gateway), poor.key)
    assert_refused(client, send(client), 402, NO_MONEY)
    assert model_api.served == served
    assert poor.paid() == []


# A large upload.


@each_client
def test_an_upload_is_answered_and_charged_once(make, gateway, model_api, account):
    seen = make(url(gateway), account.key).upload(UPLOAD)
    assert (seen.raised, seen.status) == (None, 200), seen
    assert model_api.requests[str(account.id)] == 1
    assert account.paid() == [("captured", 200, PRICE)]


@pytest.mark.parametrize("make", [one for one in CLIENTS if not one.chunked], ids=lambda client: client.name)
def test_an_upload_that_announces_too_much_says_so_and_is_free(make, gateway, model_api, account):
    served = model_api.served
    client = make(url(gateway), account.key)
    assert_refused(client, client.upload(TOO_LONG), 413, BODY_TOO_LARGE)
    assert model_api.served == served
    assert account.paid() == []


@pytest.mark.parametrize("make", [one for one in CLIENTS if one.chunked], ids=lambda client: client.name)
def test_an_upload_that_becomes_too_much_says_so_and_is_charged(make, gateway, model_api, account):
    """Its head was forwarded and the upstream has not answered: the client sent too much, which is not free."""
    client = make(url(gateway), account.key)
    seen = client.upload(TOO_LONG)
    assert_explained(client, seen, 413, BODY_TOO_LARGE)
    assert seen.request_id in seen.text, seen
    assert model_api.requests[str(account.id)] == 1
    charges = account.paid()
    assert [(state, cents) for state, _, cents in charges] == [("captured", PRICE)], charges


@each_client
def test_an_upload_that_the_api_refuses_early_shows_the_apis_answer(make, gateway, model_api, account):
    client = make(url(gateway, "early"), account.key)
    for _ in range(TRIES):
        seen = client.upload(UPLOAD)
        assert_explained(client, seen, 413, TOO_LARGE)
        assert seen.headers["keytoll-cost-cents"] == str(PRICE), seen
    assert model_api.requests[str(account.id)] == TRIES
    assert account.paid() == [("captured", 413, PRICE)] * TRIES


# Streamed answers.


@each_sdk
def test_a_streamed_answer_arrives_whole_and_is_charged_once(make, gateway, model_api, account):
    seen = make(url(gateway), account.key).stream()
    assert seen.text == "".join(ANSWER), seen
    assert model_api.requests[str(account.id)] == 1
    assert account.paid() == [("captured", 200, PRICE)]


@each_sdk
def test_a_stream_that_is_refused_says_why(make, gateway, model_api, account, poor):
    served = model_api.served
    client = make(url(gateway), mistyped(account.key))
    assert_refused(client, client.stream(), 401, NO_SUCH_KEY)
    client = make(url(gateway), poor.key)
    assert_refused(client, client.stream(), 402, NO_MONEY)
    assert model_api.served == served
    assert account.paid() == poor.paid() == []


@each_sdk
def test_a_stream_whose_reader_leaves_is_charged_once(make, gateway, account):
    seen = make(url(gateway, "endless"), account.key).first_piece()
    assert seen.text == ANSWER[0], seen
    assert account.paid() == [("captured", 200, PRICE)]


@each_sdk
def test_a_stream_that_the_api_breaks_off_is_an_error_and_free(make, gateway, account):
    client = make(url(gateway, "broken"), account.key)
    with pytest.raises(Exception) as raised:
        client.stream()
    assert raised.type.__name__ == client.broken_stream, raised.value
    charges = account.paid()
    assert [state for state, _, _ in charges] == ["released"], charges


# Default retries.


@each_blocking_sdk
@pytest.mark.parametrize("status", [429, 500, 503])
def test_retries_after_a_failure_are_charged_once(make, gateway, model_api, account, status):
    model_api.answer_first(account.id, status)
    seen = make(url(gateway), account.key, max_retries=None).call()
    assert (seen.status, seen.text) == (200, "".join(ANSWER)), seen
    assert model_api.requests[str(account.id)] == 2
    charges = account.paid()
    assert [(state, code) for state, code, _ in charges] == [("released", status), ("captured", 200)], charges


@each_blocking_sdk
def test_retries_after_a_conflict_are_each_charged(make, gateway, model_api, account):
    """By default a 409 is charged, and by default both SDKs send such a request again."""
    model_api.answer_first(account.id, 409, 409, 409)
    seen = make(url(gateway), account.key, max_retries=None).call()
    assert (seen.raised, seen.status, seen.retries) == ("ConflictError", 409, 2), seen
    assert model_api.requests[str(account.id)] == 3
    assert account.paid() == [("captured", 409, PRICE)] * 3


@each_blocking_sdk
def test_refusals_of_key_and_wallet_are_not_retried(make, gateway, account, poor):
    for key, status in [(mistyped(account.key), 401), (poor.key, 402)]:
        seen = make(url(gateway), key, max_retries=None).call()
        assert (seen.status, seen.retries) == (status, 0), seen
    assert account.paid() == poor.paid() == []


@each_blocking_sdk
def test_an_upload_that_the_api_refuses_early_is_not_retried(make, gateway, model_api, account):
    client = make(url(gateway, "early"), account.key, max_retries=None)
    assert_explained(client, client.upload(UPLOAD), 413, TOO_LARGE)
    assert model_api.requests[str(account.id)] == 1
    assert account.paid() == [("captured", 413, PRICE)]
