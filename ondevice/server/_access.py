"""Who may ask: programs that call this machine by its name and have the key, and no web page.

A browser on this machine reaches the server as well, with any page that its user has open. Pages
are told by what browsers add to their requests; a page whose own name was made to point here is
told by that name.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ondevice.server._errors import Refused, respond

ANY_HOST = "*"
#: What a page may send anywhere without the browser asking first. (Without a type it may as well,
#: but then it says where it comes from.)
_OF_PAGES = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")


class Access:
    """Refuses what may not be asked, before anything of the body is read.

    ``hosts`` are names for this machine by which it may be called besides those of loopback.
    """

    def __init__(self, app: ASGIApp, api_key: str | None, hosts: Collection[str]) -> None:
        self._app = app
        self._api_key = api_key
        self._hosts = {host.lower().rstrip(".") for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope["method"], Headers(scope=scope))
        except Refused as error:
            await respond(error, error.headers)(scope, receive, send)
            return
        path = scope["path"].rstrip("/")  # some clients end it so
        await self._app({**scope, "path": path or "/"}, receive, send)

    def _check(self, method: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self._is_ours(_name(host)):
            raise Refused(
                HTTPStatus.BAD_REQUEST,
                "This server does not go by that name. If it should, start it with --host-name.",
            )
        if _is_of_other_site(headers, host):
            raise Refused(HTTPStatus.FORBIDDEN, "Web pages may not use this server.")
        if self._api_key and not _has_key(headers, self._api_key):
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                "The API key is missing or wrong. Send it in the header Authorization: Bearer KEY",
                "invalid_api_key",
                WWW_Authenticate="Bearer",
            )
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if method == "POST" and kind in _OF_PAGES:
            raise Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "Send JSON with the header Content-Type: application/json (curl: -H "
                "'Content-Type: application/json').",
            )

    def _is_ours(self, name: str) -> bool:
        if ANY_HOST in self._hosts or name == "localhost" or name in self._hosts:
            return True
        try:
            return ip_address(name).is_loopback
        except ValueError:
            return False


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_of_other_site(headers: Headers, host: str) -> bool:
    """Whether a browser says that a page of another site asks."""
    if headers.get("sec-fetch-site", "none").strip().lower() not in ("none", "same-origin"):
        return True
    origins = headers.getlist("origin")
    return any(origin.partition("://")[2].lower() != host.lower() for origin in origins)


def _has_key(headers: Headers, key: str) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    # Headers come as Latin-1; what was sent is most likely UTF-8.
    same = hmac.compare_digest(given.strip().encode("latin-1"), key.encode())
    return scheme.lower() == "bearer" and same
