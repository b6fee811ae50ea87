"""Clients that connect, ask once, and then stay and say nothing."""

import selectors
import socket

TOGETHER = 64


def idle(port, head, count):
    """So many open connections, each of which got one reply; some are under way at once. To be closed by the caller."""
    opened = []
    while len(opened) < count:
        opened += ask(port, head, min(TOGETHER, count - len(opened)))
    return opened


def ask(port, head, count):
    waiting, done = selectors.DefaultSelector(), []
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", port), timeout=10)
        client.sendall(head)
        waiting.register(client, selectors.EVENT_READ)
    while len(done) < count:
        for ready, _ in waiting.select(timeout=10) or no_answer():
            reply = ready.fileobj.recv(4096)
            if not reply.startswith(b"HTTP/1.1 200 ") or not reply.endswith(b"}"):
                raise SystemExit(f"not the whole of a good reply: {reply!r}")
            waiting.unregister(ready.fileobj)
            done.append(ready.fileobj)
    waiting.close()
    return done


def no_answer():
    raise SystemExit("a client had no reply for 10 s")
