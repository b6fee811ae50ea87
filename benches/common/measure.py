"""What is measured: the CPU time and memory of a process and its children, load without pause, load at a fixed rate."""

import contextlib
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")

# wrk prints no 99.9th percentile by itself.
WRK_SCRIPT = """
done = function(summary, latency, requests)
  local errors = summary.errors
  print(string.format('{"requests": %d, "seconds": %f, "p50_us": %d, "p99_us": %d, "p999_us": %d, "failed": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""

# One request after the other, each with a key of its own out of a file; all keys have one length and end with a line feed.
# Building the text here is what wrk.format would do, many times faster.
WRK_KEYS = """
local file = assert(io.open("%(file)s", "rb"))
local keys = file:read("*a")
file:close()
local length, count, turn = %(length)d, %(count)d, %(start)d
local head, tail = "GET %(path)s HTTP/1.1\\r\\nHost: %(host)s\\r\\nX-API-Key: ", "\\r\\n\\r\\n"
local sub, random = string.sub, math.random
math.randomseed(%(start)d)
request = function()
  local at
  if %(in_turn)s then
    at, turn = turn, (turn + 1) %% count
  else
    at = random(0, count - 1)
  end
  return head .. sub(keys, at * (length + 1) + 1, at * (length + 1) + length) .. tail
end
"""


class Keys:
    """The keys of a load: which file they stand in, and whether they come in turn or by chance, all as often."""

    def __init__(self, file, length, count, in_turn=False, start=0):
        self.file, self.length, self.count, self.in_turn, self.start = file, length, count, in_turn, start

    def script(self, url):
        host, _, path = url.removeprefix("http://").partition("/")
        return WRK_KEYS % {
            "file": self.file, "length": self.length, "count": self.count, "start": self.start, "host": host,
            "path": f"/{path}", "in_turn": str(self.in_turn).lower(),
        }


def tree(pid):
    """The process and all below it."""
    found, waiting = [], [pid]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except OSError:
            pass  # Ended meanwhile: there is nothing more to count.
    return found


def cpu_us(pid):
    """User and system time of a process and its children so far, in microseconds."""
    user = system = 0
    for one in tree(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        user, system = user + int(fields[11]), system + int(fields[12])
    return user * 1e6 / TICKS_A_SECOND, system * 1e6 / TICKS_A_SECOND


def thread_us(pid, name):
    """User and system time so far of the threads of a process that have this name, in microseconds."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # A thread that ends meanwhile has no file any more.
            head, _, rest = (task / "stat").read_text().rpartition(")")
            if head.partition("(")[2] == name:
                total += sum(map(int, rest.split()[11:13]))
    return total * 1e6 / TICKS_A_SECOND


def memory_kib(pid, what="VmRSS"):
    """Resident memory of a process and its children; `RssAnon` is the part that no file stands behind."""
    total = 0
    for one in tree(pid):
        for line in Path(f"/proc/{one}/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                total += int(line.split()[1])
    return total


def full_load(url, headers, core, seconds, connections, directory, keys=None):
    """As many requests as `connections` clients get answered, one at a time each; what wrk says of it."""
    script = directory / "load.lua"
    script.write_text(WRK_SCRIPT + (keys.script(url) if keys else ""))
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script)]
    command += ["--timeout", "30s"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    out = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    found = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
    if found["failed"]:
        raise SystemExit(f"{url}: {found['failed']} requests failed\n{out}")
    return found


CONNECTIONS_AT_A_RATE = 20


def fixed_rate(url, headers, core, seconds, rate, directory, in_step):
    """Requests that come at a rate, whether or not earlier ones were answered; latencies in microseconds, by percentile.

    `in_step`: the clocks of all connections go off together, so that requests come in bursts of one a connection, as from
    one h2load. Otherwise each connection has an h2load and a clock of its own, and requests come one by one.
    """
    processes = 1 if in_step else CONNECTIONS_AT_A_RATE
    logs = [directory / f"h2load-{number}.log" for number in range(processes)]
    running = []
    for log in logs:
        log.unlink(missing_ok=True)
        command = ["taskset", "-c", str(core), "h2load", "--h1", f"-c{CONNECTIONS_AT_A_RATE // processes}"]
        command += [f"--rps={rate // CONNECTIONS_AT_A_RATE}", f"--duration={seconds}", "--warm-up-time=1"]
        for name, value in headers.items():
            command += ["-H", f"{name}: {value}"]
        running.append(subprocess.Popen([*command, f"--log-file={log}", url], stdout=subprocess.DEVNULL))
        time.sleep(1 / rate)
    if any(process.wait() for process in running):
        raise SystemExit(f"{url}: h2load failed")
    rows = [line.split("\t") for log in logs for line in log.read_text().splitlines()]
    wrong = [row for row in rows if row[1] != "200"]
    if wrong:
        raise SystemExit(f"{url}: {len(wrong)} of {len(rows)} requests failed at {rate} a second")
    times = sorted(int(row[2]) for row in rows)
    return {name: times[min(len(times) - 1, int(len(times) * part))] for name, part in
            [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)]}


def sync_us(directory, core, rate):
    """The median time of one fdatasync after 4 KiB were written over others, in microseconds: so many a second, each by a
    process that slept before, as one that waits for requests does."""
    path = directory / "sync"
    times = []
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    with open(path, "wb", buffering=0) as file:
        file.write(bytes(1 << 20))
        os.fsync(file.fileno())
        for number in range(300):
            time.sleep(1 / rate)
            file.seek(number * 4096 % (1 << 20))
            file.write(bytes(4096))
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - begun) * 1e6)
    os.sched_setaffinity(0, cores)
    path.unlink()
    return statistics.median(times)
