"""A real nginx as the upstream: it gives up on a client that takes nothing of its reply for three seconds."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess

from stage import DEADLINE, wait_until

CONFIGURATION = """\
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log info;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    send_timeout 3s;
    server {{
        listen 127.0.0.1:{port};
        root {directory}/files;
    }}
}}
"""


def _unused_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Nginx:
    """Serves the files of `directory`/files."""

    def __init__(self, directory: pathlib.Path):
        program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        assert program, "nginx is not installed"
        (directory / "files").mkdir()
        self.error_log = directory / "error.log"
        port = _unused_port()
        configuration = directory / "nginx.conf"
        # Workers of an nginx that root started would run as a user who cannot read the directory.
        user = "user root;" if os.geteuid() == 0 else ""
        configuration.write_text(CONFIGURATION.format(user=user, directory=directory, port=port))
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen([program, "-e", str(self.error_log), "-c", str(configuration)])
        self._wait("it listens", lambda: self._is_listening(port))

    def _is_listening(self, port):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def _wait(self, what, is_done):
        def is_done_while_running():
            assert self._process.poll() is None, self.error_log.read_text()
            return is_done()

        wait_until(f"nginx: {what}", is_done_while_running)

    def wait_for_send_timeout(self):
        """Returns when nginx has given up on a client."""
        self._wait("it gave up", lambda: "timed out" in self.error_log.read_text())

    def kill(self):
        """Ends it at once, and with it every reply that is on its way."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._process.wait(DEADLINE)
