"""What the settings screen asks for: each setting with its explanation, and each key."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from textual.binding import Binding
from textual.dom import DOMNode

from ondevice import config
from ondevice.config import Settings
from ondevice.engine.messages import KVType, Preference

Kind = Literal["text", "long", "switch", "choice", "model", "theme", "key", "persona", "new"]


@dataclass(frozen=True)
class Field:
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
    Field("persona", "Persona", "Whose prompt stands in for it", "choice", default="none"),
    Field("memory", "Memory", "Remember and recall in new chats", "switch"),
    Field("model", "Model", "Loaded at the start", "model"),
    Field("models_folder", "Models folder", "Several: with : in between", default="none"),
    Field("ctx", "Context", "Tokens", default="what fits, at most 4096"),
    Field("prefer", "Prefer", "When RAM is short", "choice", get_args(Preference)),
    Field("ram", "RAM limit", "Such as 1.5G", default="what is available"),
    Field(
        "kv_type",
        "KV cache",
        "Type of its numbers",
        "choice",
        ("", *get_args(KVType)),
        "f16 unless RAM is short",
    ),
    Field("threads", "Threads", "For computing", default="the physical cores"),
    Field("draft", "Drafter", "A small model of the same family", default="none"),
    Field("sampling.temperature", "Temperature", "0 is greedy, more is livelier"),
    Field("sampling.top_k", "Top k", "Choose among so many tokens; 0 is off"),
    Field("sampling.top_p", "Top p", "Choose among this share of probability; 1 is off"),
    Field("sampling.min_p", "Min p", "At least this share of the likeliest; 0 is off"),
    Field("sampling.repeat_penalty", "Repetition penalty", "1 is off"),
    Field("sampling.repeat_last_n", "Repetition window", "Tokens that it looks back on"),
    Field("sampling.seed", "Seed", "Makes replies repeatable", default="a new one each time"),
    Field("app.theme", "Theme", "The ansi ones use the terminal's own colours", "theme"),
    Field("app.linear", "Linear", "For screen readers: nothing is drawn", "switch"),
    Field("app.mouse", "Mouse", "Off: it is the terminal's own, from the next start on", "switch"),
)


def fields(settings: Settings) -> Iterator[Field]:
    """All lines: settings, personas, then keys."""
    for field in FIELDS:
        yield field
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
    else:
        found = config.flat(settings)[field.key]
    if isinstance(found, bool):
        return "on" if found else "off"
    if isinstance(found, list | tuple):
        return os.pathsep.join(found) or field.default
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


def _place(binding_id: str) -> set[str]:
    """Where a binding is looked for: over the chat or in a dialog."""
    owner = binding_id.partition(".")[0]
    if owner in ("app", "chat", "message", "prompt"):
        return {"chat"}
    return {"chats", "memory", "models", "settings"} if owner in ("dialog", "finder") else {owner}
