"""The HTTP application: routes, access, limits, and the queue for the one engine."""

from __future__ import annotations

import asyncio
import base64
import hmac
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import msgspec
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ondevice.choice import choose
from ondevice.config import AUTO, Settings
from ondevice.engine import Engine
from ondevice.engine.messages import Chunk, Event, Finished, Generate
from ondevice.errors import ContextError, MemoryShortError, OndeviceError, UsageError
from ondevice.models import installed
from ondevice.server._protocol import ChatRequest, EmbeddingsRequest, Envelope

_MAX_BODY = 8_000_000  # bytes
_MAX_WAITING = 16  # requests; the next is told to come back later

_Record = TypeVar("_Record", bound=msgspec.Struct)


class _Refused(Exception):
    """A request that is not served."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def make_app(
    engine: Engine, settings: Settings, *, api_key: str | None, hosts: Sequence[str]
) -> Starlette:
    """The application around ``engine``, which it closes when it ends.

    ``hosts`` are the names by which clients may call this machine: a web page that the user visits
    could otherwise let a name of its own point here.
    """
    service = _Service(engine, settings, api_key)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        engine.cancel()
        await asyncio.to_thread(engine.close)

    handlers: dict[Any, Callable[[Request, Exception], Response]] = {
        _Refused: _on_error,
        OndeviceError: _on_error,
    }
    return Starlette(
        routes=[
            Route("/v1/models", service.models),
            Route("/v1/chat/completions", service.chat, methods=["POST"]),
            Route("/v1/embeddings", service.embeddings, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
        exception_handlers=handlers,
        lifespan=lifespan,
    )


class _Service:
    """The engine, for one request at a time."""

    def __init__(self, engine: Engine, settings: Settings, api_key: str | None) -> None:
        self._engine = engine
        self._settings = settings
        self._api_key = api_key
        self._free = asyncio.Lock()
        self._waiting = 0

    async def models(self, request: Request) -> Response:
        self._check_access(request)
        names = await asyncio.to_thread(_names)
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "user"} for name in names]
        return JSONResponse({"object": "list", "data": data})

    async def chat(self, request: Request) -> Response:
        self._check_access(request)
        asked = await _body(request, ChatRequest)
        events = self._events(asked.model, asked.generate(self._settings.sampling))
        if not asked.stream:
            return await _whole(request, asked, events)
        # The first event comes before the headers: what fails at once has a status of its own.
        first = await anext(events)
        return StreamingResponse(_lines(asked, first, events), media_type="text/event-stream")

    async def embeddings(self, request: Request) -> Response:
        self._check_access(request)
        asked = await _body(request, EmbeddingsRequest)
        async with self._engine_with(asked.model):
            done = await asyncio.to_thread(self._engine.embed, asked.texts)
        encode = _base64 if asked.encoding_format == "base64" else list
        data = [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(done.vectors)
        ]
        used = {"prompt_tokens": done.tokens, "total_tokens": done.tokens}
        return JSONResponse({"object": "list", "model": asked.model, "data": data, "usage": used})

    def _check_access(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._api_key and not hmac.compare_digest(given.encode(), self._api_key.encode()):
            raise _Refused(401, "The API key is missing or wrong.")

    async def _events(self, model: str, wanted: Generate) -> AsyncGenerator[Event, None]:
        """The reply; it is cancelled when this is closed."""
        async with self._engine_with(model):
            events = self._engine.generate(wanted)
            try:
                async for event in iterate_in_threadpool(events):
                    yield event
            finally:
                with anyio.CancelScope(shield=True):  # a client that left has this task cancelled
                    await anyio.to_thread.run_sync(events.close)

    @asynccontextmanager
    async def _engine_with(self, model: str) -> AsyncIterator[None]:
        """Wait until the engine is free, and have it hold the model of this name."""
        if self._waiting >= _MAX_WAITING:
            raise _Refused(429, f"{_MAX_WAITING} requests are waiting already. Try again later.")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            await asyncio.to_thread(self._load, model)
            yield
        finally:
            self._free.release()

    def _load(self, name: str) -> None:
        # A client may name what is listed, and no path.
        if name and name not in _names():
            raise _Refused(404, f'There is no model "{name}" here. GET /v1/models lists them.')
        if self._engine.loaded is not None and not name and self._settings.model == AUTO:
            return  # what has been chosen stays, while it is there
        wanted = choose(self._settings, name).request
        if self._engine.loaded is None or self._engine.loaded.path != wanted.path:
            self._engine.load(wanted)


def _names() -> list[str]:
    return [model.name for model in installed() if not model.missing]


async def _body(request: Request, kind: type[_Record]) -> _Record:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY:
            raise _Refused(413, f"A request has at most {_MAX_BODY // 1_000_000} MB.")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise UsageError(f"The request is not understood: {error}.") from error


async def _whole(
    request: Request, asked: ChatRequest, events: AsyncGenerator[Event, None]
) -> Response:
    parts: dict[str, list[str]] = {"answer": [], "thinking": []}
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Chunk):
                parts[event.part].append(event.text)
            elif isinstance(event, Finished):
                answer, thinking = ("".join(parts[name]) for name in ("answer", "thinking"))
                return JSONResponse(Envelope(asked.model).whole(answer, thinking, event))
            if await request.is_disconnected():
                break
    return Response(status_code=499)  # nobody reads it


async def _lines(
    asked: ChatRequest, first: Event, others: AsyncGenerator[Event, None]
) -> AsyncIterator[bytes]:
    """The reply as server-sent events."""
    envelope = Envelope(asked.model)
    async with aclosing(others):
        try:
            event = first
            while True:
                for chunk in envelope.chunks(event, usage=asked.wants_usage):
                    yield _line(chunk)
                if isinstance(event, Finished):
                    break
                event = await anext(others)
        except OndeviceError as error:
            yield _line(_error(error))
        yield b"data: [DONE]\n\n"


def _line(data: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def _error(error: Exception) -> dict[str, Any]:
    return {"error": {"message": str(error), "type": type(error).__name__, "code": None}}


def _on_error(_: Request, error: Exception) -> Response:
    match error:
        case _Refused():
            status = error.status
        case UsageError() | ContextError():
            status = 400
        case MemoryShortError():
            status = 503
        case _:
            status = 500
    return JSONResponse(_error(error), status)


def _base64(vector: Sequence[float]) -> str:
    """Little-endian 32-bit floats, as OpenAI's clients ask for them."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
