"""Clients as applications use them, each with a small call and an upload, and what its user sees of the answer.

Only an exception that carries an HTTP answer becomes a `Seen`. Any other, such as one for a broken connection, reaches the
test.
"""

import asyncio
import dataclasses
import io
import json
import pathlib
import subprocess
from collections.abc import Mapping

import aiohttp
import anthropic
import httpx
import openai

from stage import DEADLINE

QUESTION = [{"role": "user", "content": "How is the sky?"}]
SCRIPT = pathlib.Path(__file__).with_name("uploads.mjs")
PIECE = 65_536


@dataclasses.dataclass(frozen=True)
class Seen:
    raised: str | None  # the class of the exception
    status: int
    text: str  # of the exception, else the body; after a success of an SDK, what the application reads from it
    request_id: str | None
    headers: Mapping[str, str]  # with names in lower case
    retries: int | None = None  # how often an SDK sent the request again before it raised the exception


class Sdk:
    """What both SDKs have in common, in their blocking form."""

    chunked = False

    def __init__(self, url, key, max_retries=0):
        self._options = {"base_url": self._base(url), "api_key": key, "timeout": DEADLINE}
        if max_retries is not None:
            self._options["max_retries"] = max_retries

    def call(self):
        return self._see(self._create, self._text)

    def upload(self, size):
        return self._see(lambda client: self._upload(client, size), lambda file: file.id)

    def stream(self):
        """The pieces of a streamed answer."""
        return self._see(self._pieces)

    def first_piece(self):
        """The first piece of a streamed answer, whose rest is not read."""
        return self._see(lambda client: self._pieces(client, limit=1))

    def _see(self, action, text="".join):
        try:
            reply = self._run(action)
        except self.module.APIStatusError as error:
            headers = dict(error.response.headers)
            retries = int(error.response.request.headers["x-stainless-retry-count"])
            return Seen(type(error).__name__, error.status_code, str(error), self._request_id(error), headers, retries)
        return Seen(None, 200, text(reply), None, {})

    def _run(self, action):
        with self.client_class(**self._options) as client:
            return action(client)

    def _pieces(self, client, limit=None):
        pieces = []
        with self._create(client, stream=True) as stream:
            for event in stream:
                if piece := self._piece(event):
                    pieces.append(piece)
                    if len(pieces) == limit:
                        break
        return pieces


class Async:
    """The form of an SDK for asyncio."""

    def _run(self, action):
        async def run():
            async with self.client_class(**self._options) as client:
                return await action(client)

        return asyncio.run(run())

    async def _pieces(self, client, limit=None):
        pieces = []
        async with await self._create(client, stream=True) as stream:
            async for event in stream:
                if piece := self._piece(event):
                    pieces.append(piece)
                    if len(pieces) == limit:
                        break
        return pieces


class OpenAI(Sdk):
    name = "openai"
    module = openai
    client_class = openai.OpenAI
    raises = {401: "AuthenticationError", 402: "APIStatusError", 413: "APIStatusError"}
    broken_stream = "APIConnectionError"
    shows_body = False  # the text of an exception has only the message of the answer

    def _base(self, url):
        return f"{url}/v1"

    def _create(self, client, **options):
        return client.chat.completions.create(model="m", messages=QUESTION, **options)

    def _text(self, completion):
        return completion.choices[0].message.content

    def _piece(self, chunk):
        return chunk.choices[0].delta.content if chunk.choices else None

    def _upload(self, client, size):
        return client.files.create(file=("upload", bytes(size)), purpose="batch")

    def _request_id(self, error):
        return error.request_id


class AsyncOpenAI(Async, OpenAI):
    name = "openai-async"
    client_class = openai.AsyncOpenAI


class Anthropic(Sdk):
    name = "anthropic"
    module = anthropic
    client_class = anthropic.Anthropic
    raises = {401: "AuthenticationError", 402: "PaymentRequiredError", 413: "ContentTooLargeError"}
    broken_stream = "RemoteProtocolError"  # of the HTTP library
    shows_body = True

    def _base(self, url):
        return url

    def _create(self, client, **options):
        return client.messages.create(model="m", max_tokens=8, messages=QUESTION, **options)

    def _text(self, message):
        return message.content[0].text

    def _piece(self, event):
        return event.delta.text if event.type == "content_block_delta" else None

    def _upload(self, client, size):
        return client.files.upload(file=("upload", bytes(size)))

    def _request_id(self, error):
        # The exception's own `request_id` is read from the header `request-id`.
        return error.response.headers.get("x-request-id")


class AsyncAnthropic(Async, Anthropic):
    name = "anthropic-async"
    client_class = anthropic.AsyncAnthropic


class HttpClient:
    """A client that hands the body to its user. A chunked upload has no Content-Length."""

    raises = {}
    shows_body = True
    chunked = False

    def __init__(self, url, key):
        self._url, self._key = url, key
        self._headers = {"Authorization": f"Bearer {key}"}

    def call(self):
        return self._post("/v1/chat/completions", json.dumps({"model": "m", "messages": QUESTION}).encode())

    def upload(self, size):
        return self._post("/v1/files", bytes(size))

    def _post(self, path, body):
        status, text, headers = self._answer(self._url + path, body)
        headers = {name.lower(): value for name, value in headers.items()}
        return Seen(None, status, text, headers.get("x-request-id"), headers)

    @staticmethod
    def _in_pieces(body):
        for start in range(0, len(body), PIECE):
            yield body[start : start + PIECE]

    async def _in_pieces_async(self, body):
        for piece in self._in_pieces(body):
            yield piece


class Httpx(HttpClient):
    name = "httpx"

    def _answer(self, url, body):
        content = self._in_pieces(body) if self.chunked else body
        with httpx.Client(timeout=DEADLINE) as client:
            reply = client.post(url, content=content, headers=self._headers)
        return reply.status_code, reply.text, reply.headers


class ChunkedHttpx(Httpx):
    name = "httpx-chunked"
    chunked = True


class AsyncHttpx(HttpClient):
    name = "httpx-async"

    def _answer(self, url, body):
        async def answer():
            content = self._in_pieces_async(body) if self.chunked else body
            async with httpx.AsyncClient(timeout=DEADLINE) as client:
                return await client.post(url, content=content, headers=self._headers)

        reply = asyncio.run(answer())
        return reply.status_code, reply.text, reply.headers


class Aiohttp(HttpClient):
    name = "aiohttp"

    def _answer(self, url, body):
        async def answer():
            data = self._in_pieces_async(body) if self.chunked else io.BytesIO(body)
            timeout = aiohttp.ClientTimeout(total=DEADLINE)
            async with aiohttp.ClientSession(timeout=timeout, headers=self._headers) as session:
                async with session.post(url, data=data) as reply:
                    return reply.status, await reply.text(), reply.headers

        return asyncio.run(answer())


class ChunkedAiohttp(Aiohttp):
    name = "aiohttp-chunked"
    chunked = True


class Fetch(HttpClient):
    """Node's own, in a process that reads the body from standard input."""

    name = "fetch"

    def _answer(self, url, body):
        how = "stream" if self.chunked else "whole"
        command = ["node", str(SCRIPT), "once", url, self._key, how]
        done = subprocess.run(command, input=body, capture_output=True, timeout=DEADLINE)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert "error" not in found, found
        return found["status"], found["text"], found["headers"]


class ChunkedFetch(Fetch):
    name = "fetch-chunked"
    chunked = True


SDKS = [OpenAI, AsyncOpenAI, Anthropic, AsyncAnthropic]
CLIENTS = [*SDKS, Httpx, ChunkedHttpx, AsyncHttpx, Aiohttp, ChunkedAiohttp, Fetch, ChunkedFetch]
