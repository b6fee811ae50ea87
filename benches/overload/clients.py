"""Clients of this bench: callers that behave, probes, and slow ones of four kinds.

Each function named `run_*` is the whole of a process of its own: it sends what it found through `result`.
"""

import asyncio
import contextlib
import socket
import time

# A client that was refused does as `Retry-After: 1` says.
RETRY_SECONDS = 1
REPLY_SECONDS = 30
HEAD_END = b"\r\n\r\n"


class Closed(Exception):
    """The gateway ended the connection before a whole reply."""


async def read_reply(reader):
    """The status of a reply with a Content-Length, and whether the connection ends with it."""
    try:
        head = (await asyncio.wait_for(reader.readuntil(HEAD_END), REPLY_SECONDS)).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        await asyncio.wait_for(reader.readexactly(length), REPLY_SECONDS)
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError, asyncio.TimeoutError) as error:
        raise Closed from error
    return int(head.split(b" ", 2)[1]), b"\r\nconnection: close\r\n" in head


class Tally:
    """What some clients were answered."""

    def __init__(self):
        self.times, self.statuses, self.closed = [], {}, 0

    def add(self, status, seconds):
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if status == 200:
            self.times.append(seconds)

    def as_dict(self):
        return {"times": sorted(self.times), "statuses": self.statuses, "closed": self.closed}


class Caller:
    """One keep-alive client that asks every `pace` seconds, until the end."""

    def __init__(self, port, head, pace, tally):
        self.port, self.head, self.pace, self.tally = port, head, pace, tally
        self.served = asyncio.Event()
        self.ends = float("inf")

    async def run(self, delay):
        await asyncio.sleep(delay)
        while time.monotonic() < self.ends:
            try:
                await self.connection()
            except (OSError, Closed):
                self.tally.closed += 1
            if time.monotonic() < self.ends:
                await asyncio.sleep(RETRY_SECONDS)

    async def connection(self):
        """Until it was refused, or the gateway ends it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            while time.monotonic() < self.ends:
                begun = time.perf_counter()
                writer.write(self.head)
                status, ends = await read_reply(reader)
                seconds = time.perf_counter() - begun
                self.tally.add(status, seconds)
                if status == 200:
                    self.served.set()
                if status != 200 or ends:
                    return
                await asyncio.sleep(max(0.0, self.pace - seconds))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def run_callers(port, head, count, pace, spread, result, orders):
    """`count` callers that begin within `spread` seconds. Sends "ready" at once, or when all were served if `spread` is
    0; from the order on, which is a number of seconds, it measures latencies. Statuses are counted always."""

    async def main():
        tally = Tally()
        callers = [Caller(port, head, pace, tally) for _ in range(count)]
        # Not all at the same time, whatever their number.
        begin = spread or pace
        tasks = [asyncio.create_task(caller.run(begin * turn / count)) for turn, caller in enumerate(callers)]
        if not spread:
            await asyncio.wait_for(asyncio.gather(*(caller.served.wait() for caller in callers)), REPLY_SECONDS)
        result.send("ready")
        seconds = await asyncio.get_running_loop().run_in_executor(None, orders.recv)
        tally.times.clear()
        for caller in callers:
            caller.ends = time.monotonic() + seconds
        await asyncio.gather(*tasks)
        result.send(tally.as_dict())

    asyncio.run(main())


def run_probes(port, pace, result, orders):
    """One probe after the other, each on a connection of its own, for as long as ordered."""

    async def main():
        tally = Tally()
        result.send("ready")
        ends = time.monotonic() + await asyncio.get_running_loop().run_in_executor(None, orders.recv)
        turn = 0
        while time.monotonic() < ends:
            path = ("healthz", "readyz")[turn % 2]
            begun, turn = time.perf_counter(), turn + 1
            caller = Caller(port, f"GET /.keytoll/{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode(), 0, tally)
            try:
                await caller.connection()
            except (OSError, Closed):
                tally.closed += 1
            # The time that the connection took is a part of it.
            if tally.times:
                tally.times[-1] = time.perf_counter() - begun
            await asyncio.sleep(pace)
        result.send(tally.as_dict())

    asyncio.run(main())


class Slow:
    """Connections of one kind: what each sends at first, and what it does once a second."""

    name, head, small_buffer = "silent", b"", False

    def open(self, port):
        client = socket.socket()
        if self.small_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        if self.head:
            client.sendall(self.head)
        client.setblocking(False)
        return client

    def tick(self, client):
        """False when the gateway has ended the connection."""
        try:
            return bool(client.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False


class Sending(Slow):
    def tick(self, client):
        try:
            client.send(b"x")
        except BlockingIOError:
            return True
        except OSError:
            return False
        return super().tick(client)


class SlowHead(Sending):
    name, head = "slow head", b"GET /public HTTP/1.1\r\nHost: a\r\nx-slow: "


class SlowBody(Sending):
    name, head = "slow body", b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"


class SlowReader(Slow):
    name, head, small_buffer = "slow reader", b"GET /public/large HTTP/1.1\r\nHost: a\r\n\r\n", True

    def tick(self, client):
        try:
            return bool(client.recv(512))
        except BlockingIOError:
            return True
        except OSError:
            return False


class StuckReader(SlowReader):
    """Of a reply that is longer than all buffers: what the gateway stores for it stays."""

    name, head = "slow reader of 16 MiB", b"GET /public/huge HTTP/1.1\r\nHost: a\r\n\r\n"


KINDS = [Slow(), SlowHead(), SlowBody(), SlowReader()]
# A tenth of the others, and after the measurement.
LAST_KIND = StuckReader()
SLICES = 20


def run_slow(port, result, orders):
    """Opens as many connections of the next kind as are ordered, and keeps all of them slow; sends how many of each are
    open still when the order is 0, and ends."""
    opened, slices = {}, 0
    kinds = iter([*KINDS, LAST_KIND])
    while True:
        if orders.poll():
            count = orders.recv()
            if not count:
                break
            kind = next(kinds)
            opened[kind] = [kind.open(port) for _ in range(count)]
            result.send("opened")
        begun = time.monotonic()
        for kind, clients in opened.items():
            for place in range(slices % SLICES, len(clients), SLICES):
                if clients[place] and not kind.tick(clients[place]):
                    clients[place].close()
                    clients[place] = None
        slices += 1
        time.sleep(max(0.0, begun + 1 / SLICES - time.monotonic()))
    result.send({kind.name: sum(client is not None for client in clients) for kind, clients in opened.items()})
