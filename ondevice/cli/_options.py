"""Flags that several commands share, laid over the settings from environment and file."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click
import msgspec
from click.shell_completion import CompletionItem

from ondevice import config
from ondevice.engine.messages import KVType, Preference
from ondevice.models import installed

_Command = Callable[..., Any]
_Record = TypeVar("_Record", bound=msgspec.Struct)


def complete_model(
    _ctx: click.Context, _param: click.Parameter, typed: str
) -> list[CompletionItem]:
    """Names of models on disk for the shell, and files for anything else."""
    names = [CompletionItem(m.name) for m in installed() if m.name.startswith(typed)]
    return names or [CompletionItem(typed, type="file")]


_FLAGS = (
    click.option(
        "-m",
        "--model",
        metavar="NAME|FILE|URL",
        shell_complete=complete_model,
        help="A model's name (see 'ondevice models list'), a GGUF file, or a server's URL; auto, "
        "the default, is the best on disk for this machine.",
    ),
    click.option("-s", "--system", metavar="TEXT", help="System prompt; empty for none."),
    click.option("--ctx", type=click.IntRange(min=16), metavar="TOKENS", help="Context length."),
    click.option("--kv-type", type=click.Choice(get_args(KVType)), help="Type of the KV cache."),
    click.option(
        "--prefer",
        type=click.Choice(get_args(Preference)),
        help="When RAM is short: speed, quality (exact), or balanced.",
    ),
    click.option("--threads", type=click.IntRange(min=1), help="Threads; default: physical cores."),
    click.option("--ram", metavar="SIZE", help="Use at most this much RAM, such as 1.5G."),
    click.option(
        "--draft",
        metavar="NAME|FILE",
        shell_complete=complete_model,
        help="A small model of the same family that drafts for one larger than RAM; or none.",
    ),
    click.option("--temperature", type=click.FloatRange(min=0), help="0 is greedy."),
    click.option("--top-k", type=click.IntRange(min=0), help="0 is off."),
    click.option("--top-p", type=click.FloatRange(0, 1), help="1 is off."),
    click.option("--min-p", type=click.FloatRange(0, 1), help="0 is off."),
    click.option("--repeat-penalty", type=click.FloatRange(min=0, min_open=True), help="1 is off."),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**32 - 2),
        help="Repeats a reply, if the chat so far and the RAM are the same too.",
    ),
)


def settings_flags(command: _Command) -> _Command:
    """Give ``command`` the flags above; it gets them merged, as ``settings: Settings``."""

    @functools.wraps(command)
    def with_settings(**flags: Any) -> Any:
        settings = config.load()
        sampling = _lay_over(settings.sampling, flags)
        if flags.get("system") is not None:  # asked for, so it goes before a persona
            settings = msgspec.structs.replace(settings, persona=None)
        settings = _lay_over(settings, flags)
        return command(settings=msgspec.structs.replace(settings, sampling=sampling), **flags)

    for flag in reversed(_FLAGS):
        with_settings = flag(with_settings)
    return with_settings


def _lay_over(record: _Record, flags: dict[str, Any]) -> _Record:
    """``record`` with the flags that were given; takes them out of ``flags``."""
    values = {name: flags.pop(name) for name in record.__struct_fields__ if name in flags}
    return msgspec.structs.replace(record, **{k: v for k, v in values.items() if v is not None})
