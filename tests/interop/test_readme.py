"""The README's tour does what it says when it is pasted."""

import pathlib
import re
import socket
import subprocess

from stage import DEADLINE, ROOT, binary, environment


def tour():
    """The tour's shell blocks, in order, without the build."""
    readme = (ROOT / "README.md").read_text()
    (chapter,) = re.findall(r"^## A tour in five minutes$(.*?)^## ", readme, re.DOTALL | re.MULTILINE)
    lines = "".join(re.findall(r"^```sh\n(.*?)^```", chapter, re.DOTALL | re.MULTILINE)).splitlines()
    return [line for line in lines if not line.startswith(("cargo build", "export PATH="))]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_the_tour_works_when_pasted(tmp_path):
    api, data, admin = free_ports(3)
    script = "\n".join(tour()).replace("3000", api).replace(":8080", ":" + data).replace(":8081", ":" + admin)
    variables = environment()
    variables["PATH"] = f"{pathlib.Path(binary()).parent}:{variables['PATH']}"
    variables["KEYTOLL_LISTEN"] = f"127.0.0.1:{data}"
    variables["KEYTOLL_ADMIN_LISTEN"] = f"127.0.0.1:{admin}"
    # A line that fails ends it, and nothing that it started outlives it.
    script = "set -euo pipefail\ntrap 'kill ${GATEWAY:-} ${API:-} 2>/dev/null || true' EXIT\n" + script + "\nwait\n"
    command = ["bash", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=DEADLINE)
    said = done.stdout + done.stderr
    # A job that is ended by a signal gives `wait` its status, of which nobody asks; the gateway's own is 0.
    assert "books of 1 user balance" in done.stdout, said
    statuses = re.findall(r"HTTP/1\.1 (\d{3}) ", done.stdout)
    assert statuses == ["200", "200", "401", "401"], said
    assert '"balance_cents":496' in done.stdout and "$14.96" in done.stdout, said
    assert "inactive-key" in done.stdout, said
