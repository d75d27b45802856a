"""Connections that end: those that send or take nothing, and the idle ones when there are many."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

_MOST = 200  # connections
_HEAD_S = 10.0  # in which the head of a request has to come, from when one can
_BODY_S = 60.0  # in which the rest of it has to come
_TAKE_S = 30.0  # in which a client has to take what is ready for it
_SHUTDOWN_S = 2


def server_of(app: ASGIApp, on_stop: Callable[[], None]) -> uvicorn.Server:
    """What serves ``app`` until a signal comes; ``on_stop`` has to end what is under way then."""
    config = uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        log_level="error",  # not each request that is no HTTP
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    return _Server(config, on_stop)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        await super().shutdown(sockets)


class _Connection(H11Protocol):
    """One that does not wait for ever for its client."""

    _since = 0.0
    _awaited: object = None  # what the client is to send, as h11 calls it
    _sending: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = time.monotonic()
        self._watch()
        if len(self.connections) > _MOST:
            others = [each for each in self.connections if isinstance(each, _Connection)]
            idle = [each for each in others if each._is_idle and each is not self]
            oldest = min(idle, key=lambda each: each._since, default=self)
            oldest.transport.abort()
            self.connections.discard(oldest)

    def connection_lost(self, exc: Exception | None) -> None:
        for clock in (self._sending, self._taking):
            if clock is not None:
                clock.cancel()
        self._sending = self._taking = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._since = time.monotonic()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        under_way = not self._is_idle
        if under_way and self.cycle.response_started:
            self.transport.abort()
            return
        super().send_400_response(msg)
        if under_way:  # what the application says of a body that is no HTTP comes too late
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._taking = self.loop.call_later(_TAKE_S, self.transport.abort)

    def resume_writing(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None
        super().resume_writing()

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        """Start the clock for what is awaited, unless it runs already."""
        awaited = self.conn.their_state
        if awaited is self._awaited or self.transport.is_closing():
            return
        self._awaited = awaited
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        seconds = {h11.IDLE: _HEAD_S, h11.SEND_BODY: _BODY_S}.get(awaited)
        if seconds is not None:
            self._sending = self.loop.call_later(seconds, self.transport.abort)
