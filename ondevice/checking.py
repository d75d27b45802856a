"""Checks records that were made in Python, and says in plain words what a field takes.

What a field takes is written once, in the types of the records; this serves the Python interface,
the settings, the flags and what comes over HTTP alike.
"""

from __future__ import annotations

import datetime
import decimal
import difflib
import json
import re
import uuid
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from ondevice.errors import UsageError
from ondevice.text import alternatives

_Record = TypeVar("_Record", bound=msgspec.Struct)

_LONGEST = 40  # characters of a wrong value that are repeated
#: Types that msgspec would turn into text in silence, such as bytes into base64.
_NO_TEXT = (
    bytes,
    bytearray,
    memoryview,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
)
_PLACE = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")
_LIST = inspect.VarTupleType | inspect.ListType
_STEP = re.compile(r"([^.\[\]]+)|\[(\d*|\.\.\.)\]")


def work_out(*kinds: type) -> None:
    """Have msgspec work out now how these are read. For modules that do so, where they define them:
    two threads of which each is the first to read one crash the process."""
    for kind in kinds:
        msgspec.json.Decoder(kind)


def check(record: _Record, kind: type[_Record]) -> _Record:
    """``record`` as it comes out of JSON: each field of its type and in its range.

    Raises :class:`UsageError` that names the field and what it takes, also for what is no ``kind``.
    """
    if not isinstance(record, kind):
        raise UsageError(f"A {kind.__name__} is wanted, not a {type(record).__name__}.")
    try:
        plain = msgspec.to_builtins(record, builtin_types=_NO_TEXT)
        msgspec.json.encode(plain)  # a surrogate is text for Python, and for nobody else
        return msgspec.convert(plain, type(record))
    except msgspec.ValidationError as error:
        raise UsageError(explain(error, type(record), record)) from error
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        for place, value in _leaves(record):
            if isinstance(value, str) and not _is_text(value):
                raise UsageError(
                    f"{place} has bytes or half characters that are not valid UTF-8."
                ) from error
            if isinstance(value, int) and not -(2**63) <= value < 2**64:
                raise UsageError(f"{place} is too large a number.") from error
            if not isinstance(value, str | int | float | None):
                known = _type_at(inspect.type_info(type(record)), place)
                takes = f"must be {_takes(known)}" if known else "cannot be used"
                raise UsageError(f"{place} {takes}, not a {type(value).__name__}.") from error
        raise UsageError(f"This cannot be sent: {error}.") from error


def explain(error: msgspec.ValidationError, kind: type, value: object = None) -> str:
    """What is wrong with what should have become a ``kind``, as a plain sentence.

    ``value`` is where it was found, so that it can be repeated.
    """
    said = str(error)
    match = _PLACE.search(said)
    place = match[1] if match else ""
    what = said[: match.start()] if match else said
    prefix = f"{place}." if place else ""
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL):
        known = _type_at(inspect.type_info(kind), place)
        names = [f.name for f in known.fields] if isinstance(known, inspect.StructType) else []
        near = difflib.get_close_matches(unknown[1], names, 1)
        hint = f" Did you mean {prefix}{near[0]}?" if near else ""
        return f"There is no {prefix}{unknown[1]}.{hint}"
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what, re.DOTALL):
        return f"{prefix}{missing[1]} is missing."
    known = _type_at(inspect.type_info(kind), place)
    if known is None:
        return f"{place}: {what}." if place else f"{what}."
    return f"{place or 'It'} must be {_takes(known)}{_instead(value, place)}."


def _instead(record: object, place: str) -> str:
    """The value that was found, if it is short."""
    value: Any = record
    try:
        for name, index in _STEP.findall(place):
            if not name:
                value = value[int(index)]
            else:
                value = value[name] if isinstance(value, dict) else getattr(value, name)
    except (AttributeError, LookupError, TypeError, ValueError):
        return ""
    if record is None or not isinstance(value, str | int | float | None) or not _is_text(value):
        return ""
    if isinstance(value, bool | None) and not isinstance(record, msgspec.Struct):
        text = json.dumps(value)  # so it was written; in Python it is None, True or False
    else:
        text = f'"{value}"' if isinstance(value, str) else str(value)
    return f", not {text}" if len(text) <= _LONGEST and text.isprintable() else ""


def _is_text(value: object) -> bool:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _leaves(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    """Each value within a record, and where it is."""
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _leaves(getattr(value, name), f"{place}.{name}" if place else name)
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _leaves(name, place)
            yield from _leaves(each, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _leaves(each, f"{place}[{index}]")
    else:
        yield place, value


def _type_at(known: inspect.Type, place: str) -> inspect.Type | None:
    """The type of the field at ``place``, such as ``sampling.top_k`` or ``turns[0].role``."""
    for name, _ in _STEP.findall(place):
        known = _within(known, inspect.StructType | inspect.DictType if name else _LIST)
        if isinstance(known, _LIST):
            known = known.item_type
        elif isinstance(known, inspect.DictType):
            known = known.value_type
        elif isinstance(known, inspect.StructType):
            found = next((field.type for field in known.fields if field.name == name), None)
            if found is None:
                return None
            known = found
        else:
            return None
    return known


def _within(known: inspect.Type, kinds: Any) -> inspect.Type:
    """Of the types that a field may have, the one of these ``kinds``, which was found to go on."""
    if isinstance(known, inspect.UnionType):
        return next((each for each in known.types if isinstance(each, kinds)), known)
    return known


def _takes(known: inspect.Type) -> str:
    """What a field of this type takes, to stand behind "must be"."""
    match known:
        case inspect.UnionType():
            rest = [each for each in known.types if not isinstance(each, inspect.NoneType)]
            if any(isinstance(each, inspect.LiteralType) for each in rest):
                # True and false are then other words for these.
                rest = [each for each in rest if not isinstance(each, inspect.BoolType)]
            return alternatives([*map(_takes, rest)])
        case inspect.IntType() | inspect.FloatType():
            noun = "a whole number" if isinstance(known, inspect.IntType) else "a number"
            return f"{noun}{_range(known)}"
        case inspect.StrType():
            return "text"
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType():
            return f"one of {', '.join(map(str, known.values))}"
        case inspect.VarTupleType() | inspect.ListType():
            noun = "a list of at least one" if known.min_length else "a list"
            anything = isinstance(known.item_type, inspect.AnyType)
            return noun if anything else f"{noun}, each {_takes(known.item_type)}"
        case inspect.StructType():
            return f"a table of {', '.join(field.name for field in known.fields)}"
        case inspect.DictType(value_type=inspect.AnyType()):
            return "a table"
        case inspect.DictType():
            return f"a table, each value {_takes(known.value_type)}"
    return "of another type"


def _range(known: inspect.IntType | inspect.FloatType) -> str:
    if known.gt is not None:
        return f" above {known.gt}" + (f" up to {known.le}" if known.le is not None else "")
    if known.ge is not None and known.le is not None:
        return f" from {known.ge} to {known.le}"
    return f" of at least {known.ge}" if known.ge is not None else ""
