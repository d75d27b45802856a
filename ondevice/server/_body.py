"""The body of a request as a record, or what is wrong with it, by the name of the field."""

from __future__ import annotations

import codecs
import re
from typing import Any, TypeVar

import msgspec

from ondevice.checking import explain
from ondevice.server._errors import WrongField

_Record = TypeVar("_Record", bound=msgspec.Struct)

_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_MISSING = re.compile(r"Object missing required field `(.*?)`")


def record_of(body: bytes | bytearray, kind: type[_Record]) -> _Record:
    """What ``body`` says, as a ``kind``. Raises :class:`WrongField`."""
    text = body.removeprefix(codecs.BOM_UTF8)
    if not text.strip():
        raise WrongField("The request has no body. Send JSON.")
    try:
        return msgspec.json.decode(text, type=kind)
    except RecursionError as error:
        raise WrongField("The request is invalid: it is nested too deeply.") from error
    except msgspec.ValidationError as error:
        raise _wrong(error, text, kind) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WrongField(f"The request is invalid: {error}.") from error


def _wrong(error: msgspec.ValidationError, text: bytes | bytearray, kind: type) -> WrongField:
    place = match[1] if (match := _PLACE.search(str(error))) else ""
    if missing := _MISSING.match(str(error)):
        param, code = ".".join(filter(None, (place, missing[1]))), "missing_required_parameter"
    else:
        param, code = place, "invalid_value"
    if not param:
        return WrongField("The request must be a JSON object.")
    return WrongField(explain(error, kind, _plain(text)), param, code)


def _plain(text: bytes | bytearray) -> Any:
    """``text`` as plain values, to repeat a wrong one; None where it has none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
