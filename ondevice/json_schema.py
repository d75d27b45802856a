"""JSON schemas: checked, and made into what a reply is held to. llguidance knows their meaning.

A schema is obeyed or refused: what llguidance does not know of JSON Schema (2020-12 and before) is
refused by its name. Of what a schema leaves open, less is written: an object that names its
properties gets no others unless ``additionalProperties`` says so, and white space is a space or
the indentation of a line.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ondevice.errors import UsageError
from ondevice.text import size

if TYPE_CHECKING:  # it takes a while to load, and most replies have no schema
    from llguidance import LLParserLimits

MOST_BYTES = 1_000_000  # of a schema's text
_DEEPEST = 64  # levels of a schema, or of what it holds
_WHITE_SPACE = r" |\n[ \t]{0,20}"
#: Formats of OpenAPI that tell how a string is meant and not how it is written.
_HINTS = frozenset({"password", "byte", "binary", "char"})
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions"})  # name → schema
_DATA = frozenset({"enum", "const", "default", "example", "examples"})  # no schemas
#: Beside these, ``properties`` do not say alone which keys there may be.
_OPENING = frozenset(
    {"additionalProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref"}
)


def limits() -> LLParserLimits:
    """Bounds within which a schema is followed: some tenths of a second and some 100 MB at most."""
    from llguidance import LLParserLimits  # noqa: PLC0415

    return LLParserLimits(
        max_items_in_row=20_000,  # four for each optional property of an object
        step_max_items=500_000,
        initial_lexer_fuel=1_000_000,
        max_lexer_states=50_000,
        max_grammar_size=200_000,
        verbose_errors=False,
    )


def compile_schema(text: str) -> str:
    """llguidance's grammar of the JSON schema in ``text``.

    Raises :class:`UsageError` for what is no schema, cannot be obeyed, or is not understood.
    """
    from llguidance import LLMatcher  # noqa: PLC0415

    if len(text) > MOST_BYTES:
        raise UsageError(f"A JSON schema may have at most {size(MOST_BYTES)}.")
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The JSON schema is not JSON: {error}.") from error
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise UsageError('A JSON schema must be an object, such as {"type": "object"}.')
    try:
        fitted = json.dumps(_fitted(schema, is_closed="allOf" not in text))
        grammar: str = LLMatcher.grammar_from_json_schema(
            fitted, overrides={"whitespace_pattern": _WHITE_SPACE}
        )
    except (ValueError, RecursionError) as error:
        raise _refused(str(error)) from error
    is_wrong, messages = LLMatcher.validate_grammar_with_warnings(grammar, limits=limits())
    if is_wrong:
        raise _refused(messages[0])
    return grammar


def _fitted(schema: Any, *, is_closed: bool, depth: int = 0) -> Any:
    """The schema without what says nothing, and with objects that have no unnamed keys."""
    if depth > _DEEPEST:
        raise RecursionError

    def below(each: Any) -> Any:
        return _fitted(each, is_closed=is_closed, depth=depth + 1)

    if isinstance(schema, list):
        return [below(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    fitted: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _MAPS and isinstance(value, dict):
            fitted[key] = {name: below(each) for name, each in value.items()}
        else:
            fitted[key] = value if key in _DATA else below(value)
    if fitted.get("uniqueItems") is False:
        del fitted["uniqueItems"]
    if str(fitted.get("format")) in _HINTS:
        del fitted["format"]
    named, required = fitted.get("properties"), fitted.get("required", [])
    if (
        is_closed
        and isinstance(named, dict)
        and isinstance(required, list)
        and fitted.get("type", "object") == "object"
        and not _OPENING & fitted.keys()
        and named.keys() >= {key for key in required if isinstance(key, str)}
    ):
        fitted["additionalProperties"] = False
    return fitted


def _refused(message: str) -> UsageError:
    """An error in the terms of whoever wrote the schema, from one of llguidance's."""
    message = message.strip()
    *_, last = message.splitlines() or [""]
    said = f"{last.removeprefix('error: ').rstrip('.')[:300]}."
    if keys := re.match(r"Unimplemented keys: \[(.*)\]", message):
        return UsageError(f"The JSON schema uses {keys[1]}, which is not supported.")
    if name := re.match(r"Unknown format: (.*)", message):
        return UsageError(f'The JSON schema uses the format "{name[1]}", which is not supported.')
    if message.startswith("Unsatisfiable schema: "):
        why = said.partition(": ")[2]
        if why == "anyOf is empty.":  # which llguidance makes of each list of choices
            why = 'a list of choices in it ("anyOf", "enum" or "type") is empty.'
        return UsageError(f"No answer can satisfy the JSON schema: {why}")
    if message.startswith("oneOf constraints"):
        return UsageError(
            'The JSON schema uses "oneOf" with choices that might hold at once, which is '
            'not supported. Use "anyOf".'
        )
    if place := re.match(r"Resource '(.*)' is not present", message):
        return UsageError(
            f"The JSON schema refers to {place[1]}, which is not in it, and nothing is "
            'downloaded. Put it into the schema, under "$defs".'
        )
    if "regex parse error" in message:
        return UsageError(f"A pattern in the JSON schema is not supported: {said}")
    if not message or re.search(r"too (?:big|large|complex)|recursion limit|limit for", message):
        return UsageError("The JSON schema is too large or nested too deeply. Simplify it.")
    return UsageError(f"The JSON schema cannot be used: {said}")
