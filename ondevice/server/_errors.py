"""What clients are told when something cannot be done, in the form of OpenAI's protocol."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ondevice.errors import (
    ContextError,
    EngineDied,
    MemoryShortError,
    ModelNotFound,
    OndeviceError,
    UsageError,
)

_RETRY_S = "5"  # seconds after which to try again what was refused for want of room
_log = logging.getLogger("uvicorn.error")


class Refused(Exception):
    """A request that is not served. ``code`` is OpenAI's word for the reason, if it has one.

    ``param`` names the field that is the reason, if one is.
    """

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        code: str | None = None,
        *,
        param: str | None = None,
        **headers: str,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class WrongField(UsageError):
    """Something in a request is wrong: ``param`` names the field, ``code`` the kind of mistake."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ClientGone(Exception):
    """Nobody reads the answer any more."""


def busy(message: str) -> Refused:
    """That there is no room for a request now."""
    return Refused(
        HTTPStatus.TOO_MANY_REQUESTS, message, "rate_limit_exceeded", Retry_After=_RETRY_S
    )


def no_model(name: str) -> Refused:
    """That clients may not name such a model."""
    return Refused(
        HTTPStatus.NOT_FOUND,
        f'There is no model "{name}" here. GET /v1/models lists them.',
        "model_not_found",
        param="model",
    )


def body_of(error: Exception) -> dict[str, Any]:
    """The error as JSON."""
    status, code, param = _status_code_param(error)
    message = str(error)
    if isinstance(error, ContextError):  # the words by which clients know it that read no codes
        message = f"This is longer than the model's context length. {message}"
    if isinstance(error, EngineDied):  # the client knows neither conversations nor our files
        _log.error("%s", message)
        message = "The engine stopped unexpectedly. It restarts with the next request."
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        kind = "rate_limit_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def answer(_: Request, error: Exception) -> Response:
    """The error as the answer to a request."""
    if isinstance(error, ClientGone):
        return Response(status_code=499)  # as nginx calls it; nobody reads it
    headers = error.headers if isinstance(error, Refused) else None
    return respond(error, headers)


def respond(error: Exception, headers: Mapping[str, str] | None = None) -> Response:
    """The error as a response."""
    return JSONResponse(body_of(error), _status_code_param(error)[0], headers=headers)


def _status_code_param(error: Exception) -> tuple[int, str | None, str | None]:
    match error:
        case Refused():
            return error.status, error.code, error.param
        case ContextError():
            return HTTPStatus.BAD_REQUEST, "context_length_exceeded", "messages"
        case WrongField():
            return HTTPStatus.BAD_REQUEST, error.code, error.param
        case UsageError():
            return HTTPStatus.BAD_REQUEST, None, None
        case ModelNotFound():
            return HTTPStatus.NOT_FOUND, "model_not_found", "model"
        case MemoryShortError():
            return HTTPStatus.SERVICE_UNAVAILABLE, None, None
        case OndeviceError() | _:
            return HTTPStatus.INTERNAL_SERVER_ERROR, None, None
