"""What the settings screen asks for: each setting with its explanation, and each key."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal, get_args

import msgspec
from textual.binding import Binding
from textual.dom import DOMNode
from textual.keys import KEY_TO_UNICODE_NAME, REPLACED_KEYS, Keys

from ondevice import config
from ondevice.config import Settings
from ondevice.messages import KVType, Preference

_MODIFIERS = {"ctrl", "alt", "shift", "super"}
_EXAMPLES = "f9, ctrl+t, alt+enter, pageup or question_mark; separate several with commas"
#: Where nothing is typed, so that a letter may be a key.
_NO_TYPING = {"message", "ram", "help", "guide"}

Kind = Literal[
    "text", "long", "switch", "choice", "model", "theme", "key", "persona", "new", "servers"
]


class Field(msgspec.Struct, frozen=True):
    """A line of the form."""

    key: str
    """As :func:`ondevice.config.change` takes it."""
    title: str
    help: str
    kind: Kind = "text"
    choices: tuple[str, ...] = ()
    """Of a "choice"; the first is the default."""
    default: str = ""
    """How it is called where the value is None."""


FIELDS = (
    Field("system", "System prompt", "What the model is told first in a new chat", "long"),
    Field(
        "persona",
        "Persona",
        "Replaces the system prompt",
        "choice",
        default="none",
    ),
    Field(
        "thinking",
        "Thinking",
        "Whether models think first: on, off, or at most this many tokens",
        default="as the model does",
    ),
    Field("memory", "Memory", "Remember and recall in new chats", "switch"),
    Field("keep_state", "Quick resume", "Save what models have read of your chats", "switch"),
    Field(
        "state_mb",
        "Disk for quick resume",
        "Megabytes that it may take",
        default="5 % of the free space",
    ),
    Field(
        "send_memories",
        "Memories to servers",
        "Asked once for each server; F8 asks again",
        "servers",
        default="none yet",
    ),
    Field("model", "Model", "Model to load at the start", "model"),
    Field(
        "models_folder",
        "Models folder",
        "More folders with models, separated by :",
        default="none",
    ),
    Field(
        "ctx",
        "Context",
        "How many tokens the model sees at once",
        default="what fits, at most 4096",
    ),
    Field(
        "prefer", "Prefer", "What matters most when RAM is short", "choice", get_args(Preference)
    ),
    Field(
        "ram",
        "RAM limit",
        "The most RAM ondevice may use, such as 1.5G",
        default="what is available",
    ),
    Field(
        "kv_type",
        "KV cache",
        "Precision of the context in RAM; q8_0 and q4_0 use less",
        "choice",
        ("", *get_args(KVType)),
        "f16 unless RAM is short",
    ),
    Field("threads", "Threads", "How many threads compute", default="the physical cores"),
    Field(
        "draft",
        "Drafter",
        "A small model of the same family that speeds up one larger than RAM",
        default="none",
    ),
    Field("sampling.temperature", "Temperature", "0 is deterministic; higher values vary more"),
    Field("sampling.top_k", "Top k", "Sample from this many of the likeliest tokens; 0 is off"),
    Field(
        "sampling.top_p",
        "Top p",
        ("Sample from the likeliest tokens up to this probability; 1 is off"),
    ),
    Field("sampling.min_p", "Min p", "Drop tokens below this share of the likeliest; 0 is off"),
    Field(
        "sampling.repeat_penalty",
        "Repetition penalty",
        "Above 1, words already used come up less often; 1 is off",
    ),
    Field(
        "sampling.repeat_last_n",
        "Repetition window",
        ("How many recent tokens the penalty looks at"),
    ),
    Field("sampling.seed", "Seed", "Makes replies repeatable", default="a new one each time"),
    Field("app.theme", "Theme", "The ansi ones use the terminal's own colours", "theme"),
    Field("app.linear", "Linear", "Screen-reader layout: no borders, bars or tables", "switch"),
    Field("app.mouse", "Mouse", "Off leaves it to the terminal, from the next start on", "switch"),
)


def fields(settings: Settings) -> Iterator[Field]:
    """All lines: settings, personas, then keys."""
    for field in FIELDS:
        yield field
        if field.key == "send_memories":
            for server in settings.send_memories:
                yield Field(
                    f"send_memories.{server}",
                    f"Memories to {server}",
                    "Send them when they help? F8 asks again",
                    "switch",
                )
        if field.key == "persona":
            for name in settings.personas:
                yield Field(f"personas.{name}", f"Persona {name}", "F8 deletes it", "persona")
            yield Field("", "New persona …", "A name, then its system prompt", "new")
    for binding in bindings():
        yield Field(f"app.keys.{binding.id}", f"Key: {binding.description}", f"{binding.id}", "key")


def value(field: Field, settings: Settings) -> str:
    """What it is set to."""
    if field.kind == "new":
        return ""
    if field.kind == "key":
        return keys(field.help, settings)
    if field.kind == "persona":
        found: Any = settings.personas[field.key.removeprefix("personas.")]
    elif field.kind == "servers":
        allowed = sum(settings.send_memories.values())
        found = f"{allowed} of {len(settings.send_memories)}" if settings.send_memories else None
    elif field.key.startswith("send_memories."):
        found = settings.send_memories.get(field.key.removeprefix("send_memories."), False)
    else:
        found = config.flat(settings)[field.key]
    if isinstance(found, bool):
        return "on" if found else "off"
    if isinstance(found, list | tuple):
        return config.join_folders(found) or field.default
    return field.default if found is None else str(found)


def bindings() -> list[Binding]:
    """All of the app that have an id and say what they do."""
    found: dict[str, Binding] = {}
    classes: list[type[DOMNode]] = [DOMNode]
    while classes:
        one = classes.pop(0)
        classes += one.__subclasses__()
        if one.__module__.startswith("tui."):
            for binding in one.__dict__.get("BINDINGS", ()):
                if isinstance(binding, Binding) and binding.id and binding.description:
                    found[binding.id] = binding
    return sorted(found.values(), key=lambda binding: (binding.id or "").split("."))


def keys(binding_id: str, settings: Settings) -> str:
    """Those of a binding, with commas."""
    default = next(binding.key for binding in bindings() if binding.id == binding_id)
    return settings.app.keys.get(binding_id, default)


def clashes(binding_id: str, settings: Settings) -> list[str]:
    """What else the keys do that the user has given this binding."""
    mine = set(settings.app.keys.get(binding_id, "").split(",")) - {""}
    return [
        other.description
        for other in bindings()
        if mine
        and other.id != binding_id
        and _place(str(other.id)) & _place(binding_id)
        and mine & set(keys(str(other.id), settings).split(","))
    ]


def wrong_key(binding_id: str, keys: str) -> str | None:
    """What is wrong with giving a binding these keys, with commas; None: nothing."""
    known = {str(binding.id): binding for binding in bindings()}
    if binding_id not in known:
        near = difflib.get_close_matches(binding_id, known, 1)
        meant = f" Did you mean {near[0]}?" if near else ""
        return f"There is no action {binding_id} to give a key.{meant} F2 lists them all."
    for key in keys.split(","):
        *modifiers, name = key.strip().split("+")
        if not set(modifiers) <= _MODIFIERS or not _is_key(name):
            return f"There is no key “{key.strip()}”. Examples of keys: {_EXAMPLES}."
        types = not set(modifiers) - {"shift"} and (len(name) == 1 or name == "space")
        if types and binding_id.partition(".")[0] not in _NO_TYPING:
            return (
                f"“{key.strip()}” is needed for typing. Choose a key with ctrl or alt, or "
                "one such as f9."
            )
    return None


def _is_key(name: str) -> bool:
    if len(name) == 1:
        return name.isprintable()
    if name in {key.value for key in Keys}:
        return True
    named = REPLACED_KEYS.get(name, name)  # such as “slash” for what Unicode calls SOLIDUS
    with suppress(KeyError):
        unicodedata.lookup(KEY_TO_UNICODE_NAME.get(named, named.replace("_", " ").upper()))
        return True
    return False


def _place(binding_id: str) -> set[str]:
    """Where a binding is looked for: over the chat or in a dialog."""
    owner = binding_id.partition(".")[0]
    if owner in ("app", "chat", "message", "prompt"):
        return {"chat"}
    return {"chats", "memory", "models", "settings"} if owner in ("dialog", "finder") else {owner}
