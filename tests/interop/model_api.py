"""An API of a language model: replies as those of OpenAI and Anthropic look, and the ways in which they fail.

The beginning of the path chooses the behaviour:

    /early      413 as soon as the request head is there; the body is never read, and the connection is closed
    /broken     an event stream that breaks off before its last event
    /endless    an event stream that goes on until its reader leaves
    any other   the whole request is read and answered
"""

import collections
import json
from http.server import BaseHTTPRequestHandler

from stage import Upstream

ANSWER = ["The sky ", "is clear."]
TOO_LARGE = "This model takes at most 1 MB."


def _events(*events):
    return [b"".join([b"event: %s\n" % name if name else b"", b"data: %s\n\n" % data]) for name, data in events]


def _openai_stream():
    def chunk(delta, finish_reason=None):
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        document = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        return None, json.dumps(document).encode()

    pieces = [chunk({"role": "assistant", "content": piece}) for piece in ANSWER]
    return _events(*pieces, chunk({}, "stop"), (None, b"[DONE]"))


def _anthropic_stream():
    def event(name, **fields):
        return name.encode(), json.dumps({"type": name, **fields}).encode()

    pieces = [event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece}) for piece in ANSWER]
    return _events(
        event("message_start", message=_message(content=[], stop_reason=None)),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *pieces,
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 5}),
        event("message_stop"),
    )


def _completion():
    choice = {"index": 0, "message": {"role": "assistant", "content": "".join(ANSWER)}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def _message(content=None, stop_reason="end_turn"):
    if content is None:
        content = [{"type": "text", "text": "".join(ANSWER)}]
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content,
        "stop_reason": stop_reason, "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 5},
    }  # fmt: skip


def _file(size):
    """What both call a file, with the fields of either."""
    return {
        "id": "file-1", "object": "file", "type": "file", "bytes": size, "size_bytes": size, "filename": "upload",
        "mime_type": "application/octet-stream", "purpose": "batch", "status": "processed", "created_at": 1,
    }  # fmt: skip


def _failure(message):
    """Both SDKs look for the text in `error.message`."""
    return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}


class ModelApi(Upstream):
    """Counts the requests of each user in `requests`, by the id that Keytoll forwards."""

    def __init__(self):
        self.requests = collections.Counter()
        self._first = {}
        super().__init__()

    def answer_first(self, user_id, *statuses):
        """The next requests of this user are answered with these statuses, and may be sent again at once."""
        with self._lock:
            self._first[str(user_id)] = list(statuses)

    def _count(self, user_id):
        """Counts a request; the status that it has to fail with, if any."""
        with self._lock:
            self.served += 1
            self.requests[user_id] += 1
            statuses = self._first.get(user_id)
            return statuses.pop(0) if statuses else None

    def _handler(self):
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                status = api._count(self.headers["Keytoll-User-Id"])
                behaviour = self.path.split("/")[1]
                if behaviour == "early":
                    self.close_connection = True
                    return self._json(413, _failure(TOO_LARGE), ("Connection", "close"))
                body = self._body()
                if body is None:  # broken off by the gateway
                    self.close_connection = True
                elif status is not None:
                    self._json(status, _failure("Try again."), ("Retry-After-Ms", "1"))
                elif self.path.endswith("/files"):
                    self._json(200, _file(len(body)))
                else:
                    self._answer(behaviour, json.loads(body))

            def _answer(self, behaviour, request):
                openai = self.path.endswith("/chat/completions")
                if not request.get("stream"):
                    return self._json(200, _completion() if openai else _message())
                events = _openai_stream() if openai else _anthropic_stream()
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                try:
                    if behaviour == "endless":
                        self._chunks(events[:3])
                        while True:
                            self._chunks(_events((b"ping", b'{"type":"ping","choices":[]}')))
                    if behaviour == "broken":
                        self.close_connection = True
                        return self._chunks(events[:-1])
                    self._chunks([*events, b""])
                except OSError:  # the reader has left
                    self.close_connection = True

            def _chunks(self, pieces):
                for piece in pieces:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

            def _json(self, status, document, *headers):
                body = json.dumps(document).encode()
                self.send_response(status)
                for header in [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers]:
                    self.send_header(*header)
                self.end_headers()
                self.wfile.write(body)

            def _body(self):
                """The whole body, or None if it breaks off."""
                try:
                    if self.headers["Transfer-Encoding"] is None:
                        length = int(self.headers["Content-Length"])
                        body = self.rfile.read(length)
                        return body if len(body) == length else None
                    return self._chunked_body()
                except OSError:
                    return None

            def _chunked_body(self):
                pieces = []
                while line := self.rfile.readline():
                    size = int(line, 16)
                    piece = self.rfile.read(size + 2)
                    if len(piece) != size + 2:
                        return None
                    if size == 0:
                        return b"".join(pieces)
                    pieces.append(piece[:-2])
                return None

            def log_message(self, *_):
                pass

        return Handler
