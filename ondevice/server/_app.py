"""The HTTP application: routes, limits on what is sent, and the forms of answers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import struct
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ondevice.config import Settings
from ondevice.engine import Engine
from ondevice.errors import OndeviceError
from ondevice.messages import Chunk, Event, Finished
from ondevice.models import InstalledModel
from ondevice.server._access import Access
from ondevice.server._body import record_of
from ondevice.server._errors import ClientGone, Refused, answer, body_of, busy, no_model
from ondevice.server._offer import Offer
from ondevice.server._protocol import ChatRequest, EmbeddingsRequest, Envelope
from ondevice.server._queue import EngineQueue, QueuedJob
from ondevice.text import size

_MAX_BODY = 8_000_000  # bytes
_MAX_BODIES = 64_000_000  # bytes, of all that are being read

_Record = TypeVar("_Record", bound=msgspec.Struct)


def make_app(
    engine: Engine, settings: Settings, *, api_key: str | None, hosts: Collection[str]
) -> tuple[Starlette, Callable[[], None]]:
    """The application around ``engine``, which it closes when it ends; and what ends all replies.

    ``hosts`` are names by which clients may call this machine besides those of loopback: a web
    page that the user visits could otherwise let a name of its own point here. "*" is any.

    Raises :class:`UsageError` and :class:`ModelNotFound` when the settings name no model on disk.
    """
    service = _Service(engine, settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()
        await asyncio.to_thread(engine.close)

    handlers: dict[Any, Callable[[Request, Exception], Response]] = dict.fromkeys(
        (Refused, OndeviceError, ClientGone, Exception), answer
    )
    app = Starlette(
        routes=[
            Route("/v1/models", service.models),
            Route("/v1/models/{name:path}", service.model),
            Route("/v1/chat/completions", service.chat, methods=["POST"]),
            Route("/v1/embeddings", service.embeddings, methods=["POST"]),
        ],
        middleware=[Middleware(Access, api_key=api_key, hosts=hosts)],
        exception_handlers={**handlers, HTTPException: _no_route},
        lifespan=lifespan,
    )
    return app, service.stop


class _Service:
    """What the routes lead to."""

    _queue: EngineQueue

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._offer = Offer(engine, settings)
        self._reading = 0  # bytes of bodies
        self._watches: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """To be called when the event loop runs."""
        self._queue = EngineQueue(self._engine, self._offer)

    def stop(self) -> None:
        """End all replies."""
        self._queue.stop()

    async def models(self, _: Request) -> Response:
        found = await asyncio.to_thread(self._offer.models)
        data = [await asyncio.to_thread(_listed, model) for model in found]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        found = await asyncio.to_thread(self._offer.called, name)
        if found is None:
            raise no_model(name)
        return JSONResponse(_listed(found))

    async def chat(self, request: Request) -> Response:
        asked = await self._body(request, ChatRequest)
        job = self._queue.reply(asked.model or "", asked.generate(self._settings))
        self._watch(job.leave_with(request))
        events = aiter(job)
        if not asked.stream:
            return await _whole(job, events)
        # The first event comes before the headers: what fails at once has a status of its own.
        first = await anext(events)
        return StreamingResponse(
            _lines(asked, job, first, events),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store"},
        )

    async def embeddings(self, request: Request) -> Response:
        asked = await self._body(request, EmbeddingsRequest)
        job = self._queue.embed(asked.model or "", asked.texts())
        self._watch(job.leave_with(request))
        done = await anext(aiter(job))
        encode = _base64 if asked.encoding_format == "base64" else list
        data = [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(done.vectors)
        ]
        used = {"prompt_tokens": done.tokens, "total_tokens": done.tokens}
        return JSONResponse({"object": "list", "model": job.model, "data": data, "usage": used})

    def _watch(self, watch: asyncio.Task[None]) -> None:
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _body(self, request: Request, kind: type[_Record]) -> _Record:
        self._queue.check_room()  # before it is read
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                self._reading += len(part)
                if len(body) > _MAX_BODY:
                    most = f"A request may have at most {size(_MAX_BODY)}."
                    raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, most)
                if self._reading > _MAX_BODIES:
                    raise busy("The server is receiving too much at once. Try again later.")
        except ClientDisconnect:
            raise ClientGone from None
        finally:
            self._reading -= len(body)
        return record_of(body, kind)


async def _whole(job: QueuedJob[Event], events: AsyncIterator[Event]) -> Response:
    parts: dict[str, list[str]] = {"answer": [], "thinking": []}
    async for event in events:
        if isinstance(event, Chunk):
            parts[event.part].append(event.text)
        elif isinstance(event, Finished):
            said, thinking = ("".join(parts[name]) for name in ("answer", "thinking"))
            return JSONResponse(Envelope(job.model).whole(said, thinking, event))
    raise AssertionError("a reply ends with Finished or an error")


async def _lines(
    asked: ChatRequest, job: QueuedJob[Event], first: Event, others: AsyncIterator[Event]
) -> AsyncIterator[bytes]:
    """The reply as server-sent events."""
    envelope = Envelope(job.model)
    try:
        event = first
        while True:
            for chunk in envelope.chunks(event, usage=asked.wants_usage):
                yield _line(chunk)
            if isinstance(event, Finished):
                break
            await asyncio.sleep(0)  # much may have come; that the client left is seen in between
            event = await anext(others)
    except (OndeviceError, Refused) as error:
        yield _line(body_of(error))
    except ClientGone:
        return
    finally:
        job.cancel(ClientGone())
    yield b"data: [DONE]\n\n"


def _line(data: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def _listed(model: InstalledModel) -> dict[str, Any]:
    created = 0
    with contextlib.suppress(OSError):
        created = int(model.path.stat().st_mtime)
    return {"id": model.name, "object": "model", "created": created, "owned_by": "user"}


def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    what = f"{request.method} {request.url.path} is not served here ({status.phrase})."
    if status == HTTPStatus.NOT_FOUND:
        what += " The paths are /v1/chat/completions, /v1/embeddings and /v1/models."
    refused = Refused(status, what)
    refused.headers.update(error.headers or {})
    return answer(request, refused)


def _base64(vector: Sequence[float]) -> str:
    """Little-endian 32-bit floats, as OpenAI's clients ask for them."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
