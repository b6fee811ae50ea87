"""The real gateway, an upstream for it, and clients: what the tests are played on.

Nothing here sleeps for a state to be reached: it waits for the line or the answer that says so, with a deadline.
"""

import http.client
import json
import os
import pathlib
import queue
import secrets
import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEADLINE = 60.0


def binary():
    """The program under test: KEYTOLL_BIN, else what cargo built last."""
    named = os.environ.get("KEYTOLL_BIN")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    found = [named] if named else [p for p in (target / "release/keytoll", target / "debug/keytoll") if p.exists()]
    if not found:
        raise RuntimeError("no keytoll to test: run `cargo build`, or name one in KEYTOLL_BIN")
    return str(pathlib.Path(found[0]).resolve())


def environment():
    """This process's environment without anything that would configure a gateway."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("KEYTOLL_", "RUST_LOG"))}


def keytoll(*arguments, cwd):
    """Runs a command to its end."""
    command = [binary(), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=DEADLINE)


def doctor(database):
    """Fails unless the books balance."""
    result = keytoll("doctor", "--json", "--database", database, cwd=database.parent)
    assert result.returncode == 0, result.stdout + result.stderr


def wait_until(what, is_true):
    """Returns when `is_true()` holds; fails when it does not within the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not is_true():
        assert time.monotonic() < deadline, f"still not true: {what}"
        time.sleep(0.02)


class Upstream:
    """The API behind the gateway. Every GET is answered with 200, but for what the path says: /status/503."""

    def __init__(self):
        self.served = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = "http://127.0.0.1:%d" % self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _handler(self):
        """The class that answers requests."""
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                with upstream._lock:
                    upstream.served += 1
                status = int(self.path.rpartition("/")[2]) if self.path.startswith("/status/") else 200
                body = b'{"sky":"clear"}'
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def balance_cents(self):
        """What the receipt says is in the wallet."""
        return int(self.headers["Keytoll-Balance-Cents"])

    @property
    def code(self):
        """The code of the problem that Keytoll answered with."""
        return json.loads(self.body)["code"]


class Client:
    """One kept connection."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE)

    def get(self, key=None, path="/", accept=None):
        headers = {"X-API-Key": key} if key else {}
        if accept:
            headers["Accept"] = accept
        self._connection.request("GET", path, headers=headers)
        reply = self._connection.getresponse()
        return Reply(reply.status, reply.headers, reply.read())

    def close(self):
        self._connection.close()


class Gateway:
    """`keytoll serve` on a database, at 2 cents a request for the API `weather`, or with the APIs of a file."""

    def __init__(self, database, upstream, *flags, config=None):
        if config is None:
            apis = ["--upstream", upstream.url, "--api", "weather", "--price", "2"]
        else:
            apis = ["--config", str(config)]
        arguments = [
            "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", *apis, "--database", str(database), *flags,
        ]  # fmt: skip
        self._token = secrets.token_hex(16)
        variables = environment() | {"KEYTOLL_ADMIN_TOKEN": self._token}
        self._process = subprocess.Popen(
            [binary(), *arguments], cwd=database.parent, env=variables, stderr=subprocess.PIPE, text=True
        )
        self.lines = []
        self._serving = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        serving = self._serving.get(timeout=DEADLINE)
        if serving is None:
            self._process.wait(DEADLINE)
            raise RuntimeError("the gateway did not start:\n" + "\n".join(self.lines))
        self.address, self.admin_address = serving["clients"], serving["operators"]
        probe = Client(self.address)
        assert probe.get(path="/.keytoll/readyz").status == 200
        probe.close()

    def _read(self):
        for line in self._process.stderr:
            self.lines.append(line.rstrip("\n"))
            if "keytoll serves" in line:
                self._serving.put(json.loads(line))
        self._serving.put(None)

    def client(self):
        return Client(self.address)

    def get(self, key=None, path="/"):
        """One request on a connection of its own."""
        client = self.client()
        try:
            return client.get(key, path)
        finally:
            client.close()

    def metrics(self, accept=None):
        """What a scrape of /metrics answers."""
        client = Client(self.admin_address)
        try:
            return client.get(path="/metrics", accept=accept)
        finally:
            client.close()

    def admin(self, method, path, document=None):
        """What the admin API answers; fails unless it is a success."""
        host, _, port = self.admin_address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if document is None else json.dumps(document), headers)
            reply = connection.getresponse()
            body = reply.read()
        finally:
            connection.close()
        assert 200 <= reply.status < 300, body
        return json.loads(body)

    def get_until(self, status, key):
        """Asks again until the answer has this status: for what the gateway notices within 100 ms, not at once."""
        deadline = time.monotonic() + 5
        while (reply := self.get(key)).status != status:
            assert time.monotonic() < deadline, f"still {reply.status}"
        return reply

    def stop(self):
        """Stops it as its supervisor would, and fails unless it ends well."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        self._process.stderr.close()
        assert status == 0, "\n".join(self.lines)


class Traffic:
    """Clients that call as fast as they can, until they are stopped or have made their last request."""

    def __init__(self, gateway, keys, requests_each=50_000):
        self._stop = threading.Event()
        self._counts = [{} for _ in keys]
        self._errors = []
        self._warm = threading.Semaphore(0)
        self._threads = [
            threading.Thread(target=self._run, args=(gateway, key, counts, requests_each))
            for key, counts in zip(keys, self._counts)
        ]
        for thread in self._threads:
            thread.start()
        for _ in keys:
            assert self._warm.acquire(timeout=DEADLINE)

    def _run(self, gateway, key, counts, requests):
        try:
            client = gateway.client()
            for number in range(requests):
                if self._stop.is_set():
                    break
                status = client.get(key).status
                counts[status] = counts.get(status, 0) + 1
                if number == 0:
                    self._warm.release()
            client.close()
        except Exception as error:  # told by stop(), in the test's own thread
            self._errors.append(error)
            self._warm.release()

    def stop(self):
        """Ends it; how often each status came, by client."""
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE)
        assert not self._errors, self._errors
        return self._counts
