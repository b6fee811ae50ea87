"""Processes that stand on either side of a measurement: how each is configured, started, and what a request to it needs."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

REPLY = '{"sky":"clear","wind":3}'


def demand(tools):
    """Ends the program, and says what to install, when one of the tools (with the package of each) is not there."""
    missing = [package for tool, package in tools.items() if not (shutil.which(tool) or Path(f"/usr/sbin/{tool}").exists())]
    if missing:
        sys.exit(f"install first: apt-get install {' '.join(missing)}")


def demand_keytoll(program):
    if not Path(program).exists():
        sys.exit(f"{program} is not there: cargo build --release --locked")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Peer:
    """A process that is measured, on one core, in a directory of its own."""

    headers = {}
    path = "/forecast"
    start_seconds = 20

    def __init__(self, name, upstream_port, directory, core):
        self.name, self.upstream_port, self.core = name, upstream_port, core
        self.directory = Path(directory)
        self.directory.mkdir()
        self.port = free_port()
        self.process = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}{self.path}"

    def command(self):
        raise NotImplementedError

    def environment(self):
        return dict(os.environ)

    def start(self):
        command = ["taskset", "-c", str(self.core), *map(str, self.command())]
        log = open(self.directory / "log", "wb")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment(), cwd=self.directory)
        deadline = time.monotonic() + self.start_seconds
        while True:
            try:
                request = urllib.request.Request(self.url, headers=self.headers)
                with urllib.request.urlopen(request, timeout=2) as reply:
                    assert reply.read().decode() == REPLY, f"{self.name} answers something else"
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise SystemExit(f"{self.name} does not start:\n{(self.directory / 'log').read_text()}")
                time.sleep(0.05)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)

    def check(self, served):
        """After a run: what must be true when the upstream has served so many requests."""


class Nginx(Peer):
    """`proxy_pass` with kept connections, and nothing else."""

    def server(self):
        return f"""upstream api {{ server 127.0.0.1:{self.upstream_port}; keepalive 256; keepalive_requests 100000000; }}
            server {{ listen 127.0.0.1:{self.port} backlog=4096; keepalive_requests 100000000;
              location / {{ proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}"""

    def command(self):
        file = self.directory / "nginx.conf"
        file.write_text(f"""daemon off; worker_processes 1; pid {self.directory}/pid; error_log stderr;
            events {{ worker_connections 16384; }}
            http {{ access_log off; client_body_temp_path {self.directory}; proxy_temp_path {self.directory};
              fastcgi_temp_path {self.directory}; uwsgi_temp_path {self.directory}; scgi_temp_path {self.directory};
              {self.server()} }}""")
        return [shutil.which("nginx") or "/usr/sbin/nginx", "-c", file]


class Upstream(Nginx):
    """What stands behind all of them; counts what it serves."""

    def server(self):
        return f"""server {{ listen 127.0.0.1:{self.port} backlog=4096; keepalive_requests 100000000;
              location = /count {{ stub_status; }}
              location / {{ default_type application/json; return 200 '{REPLY}'; }} }}"""

    def served(self):
        """Requests so far, those for this count left out."""
        self.asked = getattr(self, "asked", 0) + 1
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/count") as reply:
            return int(reply.read().split()[9]) - self.asked


class Keytoll(Peer):
    price_cents = 2
    durability = "normal"
    program = "keytoll"
    workers = 1
    users = 1

    def __init__(self, *args):
        super().__init__(*args)
        self.database = self.directory / "auth.db"
        self.admin_port = free_port()
        self.tool("user", "add", "ada@example.com", "--name", "Ada", "--create", "--opening-cents", 10**12)
        key = self.tool("key", "issue", "--user", "ada@example.com", "--api", "weather").strip()
        self.headers = {"X-API-Key": key}

    def environment(self):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYTOLL_")}
        return {**kept, "KEYTOLL_DATABASE": str(self.database), "KEYTOLL_LOG__FILTER": "warn",
                "KEYTOLL_SERVER__WORKERS": str(self.workers), "KEYTOLL_DATABASE__DURABILITY": self.durability}

    def tool(self, *words):
        command = [self.program, *map(str, words)]
        done = subprocess.run(command, env=self.environment(), cwd=self.directory, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def command(self):
        return [self.program, "serve", "--listen", f"127.0.0.1:{self.port}", "--admin-listen",
                f"127.0.0.1:{self.admin_port}", "--upstream", f"http://127.0.0.1:{self.upstream_port}",
                "--api", "weather", "--price", self.price_cents]

    def check(self, served):
        """The books count exactly the requests that the upstream has served, and balance."""
        self.tool("doctor")
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True) as connection:
            captured, cents = connection.execute(
                "SELECT count(*), coalesce(sum(cents), 0) FROM keytoll_charges WHERE state = 1").fetchone()
        expected = served if self.price_cents else 0
        if (captured, cents) != (expected, expected * self.price_cents):
            raise SystemExit(f"{self.name}: {served} requests were served, {captured} are on the books with {cents} cents")


class KeytollFree(Keytoll):
    price_cents = 0


class KeytollFull(Keytoll):
    durability = "full"
