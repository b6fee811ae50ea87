"""The API behind the gateway of this bench: short replies, long ones, and bodies that it reads to their end."""

import asyncio
import socket

# Not so much that a thousand slow readers use up what the kernel has for all sockets, which would slow down everybody.
LARGE_BYTES = 512 << 10
# More than the kernel takes for a client that does not read.
HUGE_BYTES = 16 << 20
PIECE = bytes(64 << 10)
HEAD_END = b"\r\n\r\n"
SHORT = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n" + b'{"sky":"clear"}'
LONG_REPLIES = {b"/large ": LARGE_BYTES, b"/huge ": HUGE_BYTES}


class Connection(asyncio.Protocol):
    """GET gets a short reply, `/large` and `/huge` long ones; after the head of a POST all that comes is read and dropped."""

    def __init__(self):
        self.buffer, self.left_bytes, self.is_post, self.may_write = b"", 0, False, True
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(high=len(PIECE))
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(PIECE))

    def data_received(self, data):
        if self.is_post:
            return
        self.buffer += data
        while HEAD_END in self.buffer and not self.is_post:
            head, _, self.buffer = self.buffer.partition(HEAD_END)
            if head.startswith(b"POST "):
                self.is_post, self.buffer = True, b""
            elif length := next((LONG_REPLIES[path] for path in LONG_REPLIES if path in head.partition(b"\r\n")[0]), None):
                self.transport.write(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode())
                self.left_bytes = length
                self.pour()
            else:
                self.transport.write(SHORT)

    def pour(self):
        while self.left_bytes and self.may_write and not self.transport.is_closing():
            piece = PIECE[:self.left_bytes]
            self.left_bytes -= len(piece)
            self.transport.write(piece)

    def pause_writing(self):
        self.may_write = False

    def resume_writing(self):
        self.may_write = True
        self.pour()


async def serve_forever(ready):
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=4096)
    ready.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def run(ready):
    """Serves until the process is ended; sends its port first."""
    asyncio.run(serve_forever(ready))
