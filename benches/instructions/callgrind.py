"""A peer under callgrind, and what callgrind's files say."""

import re
import subprocess
from collections import Counter
from pathlib import Path

CONNECTIONS = 8


def version():
    return subprocess.run(["valgrind", "--version"], check=True, capture_output=True, text=True).stdout.strip()


class Counted:
    """Mixed into a peer: runs it under callgrind."""

    def command(self):
        return ["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={self.directory}/counts",
                *super().command()]

    def load(self, requests, core):
        """So many requests, all of which must be answered with success."""
        command = ["taskset", "-c", str(core), "h2load", "--h1", f"-c{CONNECTIONS}", f"-n{requests}"]
        for name, value in self.headers.items():
            command += ["-H", f"{name}: {value}"]
        out = subprocess.run([*command, self.url], check=True, capture_output=True, text=True).stdout
        if f"status codes: {requests} 2xx," not in out:
            raise SystemExit(f"{self.name}: not every request was answered\n{out}")

    def zero(self):
        self.control("--zero")

    def dump(self):
        """Each function's own instructions since the counters were zeroed, by name of thread."""
        names = self.threads()
        self.control("--dump")
        found = {}
        for file in self.files():
            number = int(file.name.rpartition("-")[2])
            found.setdefault(names.get(number, f"thread {number}"), Counter()).update(own_costs(file))
        return found

    def files(self):
        """One for each thread: those of the first dump. Another is made at the end of the process."""
        return sorted(self.directory.glob("counts.1-*"))

    def threads(self):
        """The names of the threads by valgrind's number. It tells the kernel's number, the kernel tells the name."""
        said = subprocess.run(["vgdb", f"--pid={self.process.pid}", "v.info", "scheduler"], check=True,
                              capture_output=True, text=True)
        threads = re.findall(r"Thread (\d+): status .*?\(lwpid (\d+)\)", said.stdout + said.stderr)
        tasks = Path(f"/proc/{self.process.pid}/task")
        # Threads of the start have ended, and are listed all the same.
        alive = [(number, tasks / task / "comm") for number, task in threads if (tasks / task).exists()]
        names = {int(number): comm.read_text() for number, comm in alive}
        # The kernel keeps 15 characters. The first thread is called after callgrind.
        return {number: name.strip().removeprefix("keytoll-").rstrip("-") for number, name in names.items()} | {1: "main"}

    def control(self, order):
        subprocess.run(["callgrind_control", order, str(self.process.pid)], check=True, capture_output=True)


def own_costs(file):
    """Each function's own instructions; the format is that of the manual, "Callgrind Format Specification"."""
    names, costs, current, is_call = {}, Counter(), None, False
    for line in file.read_text().splitlines():
        if line.startswith(("fn=", "cfn=")):
            key, _, text = line.partition("=")[2].partition(" ")
            if text:
                names[key] = shortened(text)
            if line.startswith("fn="):
                current = names[key]
        elif line.startswith("calls="):
            # The next line has the cost of the call: not the function's own.
            is_call = True
        elif current is not None and line[:1] in "+-*0123456789" and line:
            if not is_call:
                costs[current] += int(line.split()[1])
            is_call = False
    return costs


def shortened(name):
    """A function's name without the hash that the compiler puts behind it, and without callgrind's mark of recursion."""
    return re.sub(r"(::h[0-9a-f]{16})?('\d+)?$", "", name)
