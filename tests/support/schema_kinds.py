"""JSON schemas of the kinds that people use, drawn at random.

The kinds are those of JSONSchemaBench (Geng et al. 2025): function calls, records of the web,
configuration files, events, deep objects; and what pydantic, OpenAPI and older drafts write.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from random import Random
from typing import Any

from jsonschema.validators import validator_for

Schema = dict[str, Any]
_WORDS = [
    "name",
    "id",
    "size",
    "city",
    "role",
    "état",
    "kind",
    "数",
    "value_1",
    "x-y",
    "a.b",
    "note",
    "tags",
    "count",
]


def _text(random: Random) -> Schema:
    return random.choice(
        [
            {"type": "string"},
            {
                "type": "string",
                "minLength": random.randint(0, 4),
                "maxLength": random.randint(4, 9),
            },
            {"type": "string", "pattern": random.choice(_PATTERNS)},
            {"type": "string", "format": random.choice(_FORMATS)},
            {"enum": random.sample(_ODD, 3)},
            {"const": random.choice(_ODD)},
            {"type": ["string", "null"], "maxLength": 6},
        ]
    )


_PATTERNS = (
    r"^\d{3}$",
    r"^\w+$",
    r"^[A-Z]{2}-\d{1,4}$",
    "ab",
    r"^a.b$",
    r"\s",
    r"^(x|y)*z?$",
    r"^.+\.",
)
_FORMATS = ("date", "time", "date-time", "email", "uuid", "ipv4", "ipv6", "uri", "hostname")
_ODD = ("a", "b c", 'q"uote', "new\nline", "tab\t", "back\\slash", "ü€𝄞", "", "</s>", "<|im_end|>")


def _number(random: Random) -> Schema:
    low = random.randint(-50, 50)
    return random.choice(
        [
            {"type": "integer"},
            {"type": "number"},
            {"type": "integer", "minimum": low, "maximum": low + random.randint(0, 300)},
            {"type": "number", "exclusiveMinimum": low, "maximum": low + 1.5},
            {"type": "integer", "multipleOf": random.choice([2, 3, 5, 7]), "minimum": low},
            {"type": "integer", "format": "int32", "exclusiveMaximum": low},
        ]
    )


def _leaf(random: Random) -> Schema:
    other: Schema = {"type": random.choice(["boolean", "null"])}
    return random.choice([_text(random), _text(random), _number(random), other])


def _any(random: Random, depth: int) -> Schema:
    if depth <= 0:
        return _leaf(random)
    return random.choice([_leaf, _object(depth), _object(depth), _array(depth), _choice(depth)])(
        random
    )


def _object(depth: int) -> Callable[[Random], Schema]:
    def draw(random: Random) -> Schema:
        names = random.sample(_WORDS, random.randint(1, 5))
        found: Schema = {
            "type": "object",
            "properties": {name: _any(random, depth - 1) for name in names},
            "required": random.sample(names, random.randint(0, len(names))),
        }
        match random.randint(0, 5):
            case 0:
                found["additionalProperties"] = False
            case 1:
                found["additionalProperties"] = _leaf(random)
            case 2:
                found["patternProperties"] = {"^p_": _leaf(random)}
                found["additionalProperties"] = False
        return found

    return draw


def _array(depth: int) -> Callable[[Random], Schema]:
    def draw(random: Random) -> Schema:
        least = random.randint(0, 2)
        found: Schema = {
            "type": "array",
            "minItems": least,
            "maxItems": least + random.randint(0, 3),
        }
        if random.random() < 0.2:
            found["prefixItems"] = [_leaf(random)]
        return found | {"items": _any(random, depth - 1)}

    return draw


def _choice(depth: int) -> Callable[[Random], Schema]:
    return lambda random: {"anyOf": [_any(random, depth - 1) for _ in range(random.randint(1, 3))]}


def function_call(random: Random) -> Schema:
    call = {"type": "object", "required": ["name", "arguments"], "additionalProperties": False}
    return call | {
        "properties": {"name": {"const": random.choice(_ODD)}, "arguments": _object(1)(random)}
    }


def record(random: Random) -> Schema:
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "t"} | _object(1)(random)


def deep(random: Random) -> Schema:
    return _object(4)(random)


def pydantic(random: Random) -> Schema:
    """A model with nested models, an optional field and an enum."""
    return {
        "$defs": {
            "Color": {"enum": ["red", "green"], "type": "string"},
            "Part": _object(1)(random),
        },
        "properties": {
            "color": {"$ref": "#/$defs/Color"},
            "parts": {"items": {"$ref": "#/$defs/Part"}, "type": "array", "maxItems": 2},
            "old": {"allOf": [{"$ref": "#/$defs/Color"}], "default": "red"},
            "note": {"anyOf": [_leaf(random), {"type": "null"}], "default": None},
        },
        "required": ["color", "parts"],
        "type": "object",
    }


def tree(random: Random) -> Schema:
    """A recursive schema, by a reference at its root."""
    node: Schema = {
        "type": "object",
        "properties": {
            "v": _leaf(random),
            "next": {"anyOf": [{"$ref": "#/definitions/N"}, {"type": "null"}]},
        },
        "required": ["v", "next"],
        "additionalProperties": False,
    }
    return {"$ref": "#/definitions/N", "definitions": {"N": node}}


def union(random: Random) -> Schema:
    kinds = [
        {
            "type": "object",
            "properties": {"kind": {"const": kind}, "value": _leaf(random)},
            "required": ["kind", "value"],
        }
        for kind in random.sample(_WORDS, 3)
    ]
    return {"oneOf": kinds, "discriminator": {"propertyName": "kind"}}


def merged(random: Random) -> Schema:
    first, second = (
        {"type": "object", "properties": {name: _leaf(random)}, "required": [name]}
        for name in random.sample(_WORDS, 2)
    )
    return {"allOf": [first, second]}


def not_supported(random: Random) -> Schema:
    """What has to be refused by its name."""
    keyword: Schema = random.choice(
        [
            {"not": {"type": "null"}},
            {"type": "array", "uniqueItems": True},
            {"type": "array", "contains": {"type": "integer"}},
            {"type": "object", "propertyNames": {"pattern": "^a"}},
            {"if": {"type": "string"}, "then": {"minLength": 2}},
            {"type": "object", "dependentRequired": {"a": ["b"]}},
            {"type": "object", "unevaluatedProperties": False},
            {"type": "string", "format": "phone"},
            {"$ref": "https://example.com/schema.json"},
        ]
    )
    return {"type": "object", "properties": {"a": keyword}, "required": ["a"]}


KINDS: tuple[Callable[[Random], Schema], ...] = (
    function_call,
    record,
    deep,
    pydantic,
    tree,
    union,
    merged,
    _array(2),
    _choice(1),
    _text,
    _number,
)


def fault(schema: Schema, answer: str) -> str:
    """In what ``answer`` does not obey ``schema``; empty: it does."""
    try:
        value = json.loads(answer, parse_float=Decimal)
        answer.encode()
    except ValueError as error:
        return f"{error}"
    kind = validator_for(schema)
    wrong = next(iter(kind(schema, format_checker=kind.FORMAT_CHECKER).iter_errors(value)), None)
    return wrong.message if wrong else ""
