"""Flags that several commands share, laid over the settings from environment and file."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import click
import msgspec
from click.shell_completion import CompletionItem
from msgspec import inspect

from ondevice import config
from ondevice.checking import check
from ondevice.config import Settings
from ondevice.errors import FileError, UsageError
from ondevice.messages import KVType, Preference, Sampling
from ondevice.system.typed_paths import looks_like_path

_Command = Callable[..., Any]
_Flag = Callable[[_Command], _Command]
_Record = TypeVar("_Record", bound=msgspec.Struct)


class FilePath(click.Path):
    """A path. None that is empty, as of a variable that is not set: it would be the folder where
    one is, with all files in it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path. Raises :class:`click.BadParameter`."""
        if not value:
            self.fail("it is empty.", param, ctx)
        return Path(os.fsdecode(super().convert(value, param, ctx)))


def complete_model(
    _ctx: click.Context, _param: click.Parameter, typed: str
) -> list[CompletionItem]:
    """Names of models on disk for the shell, and files for anything else."""
    from ondevice.models import installed  # noqa: PLC0415 - only to complete

    names = [CompletionItem(m.name) for m in installed() if m.name.startswith(typed)]
    return names or [CompletionItem(typed, type="file")]


def complete_file(_ctx: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Files, for what takes something else as well."""
    return [CompletionItem(typed, type="file")]


class WholeNumber(click.IntRange):
    """A whole number within limits, called so where something else is given."""

    name = "whole number"


class Number(click.FloatRange):
    """A number within limits, called so where something else is given."""

    name = "number"


def limits(record: type[msgspec.Struct], name: str) -> WholeNumber | Number:
    """What a field takes, as its type says, for click: it then stands in ``--help`` too."""
    known = inspect.type_info(get_type_hints(record, include_extras=True)[name])
    if isinstance(known, inspect.UnionType):
        numbers = (inspect.IntType, inspect.FloatType)
        known = next(each for each in known.types if isinstance(each, numbers))
    assert isinstance(known, inspect.IntType | inspect.FloatType)
    if isinstance(known, inspect.IntType):
        return WholeNumber(known.ge, known.le)
    is_open = known.gt is not None
    return Number(known.gt if is_open else known.ge, known.le, is_open)


def check_is_new(file: Path, force: bool) -> None:
    """Raise :class:`FileError` if a file is there that is not to be replaced."""
    if file.is_file() and not force:
        raise FileError(f"{file} already exists. Replace it with --force, or name another file.")


def model_file(model: str) -> Path:
    """The GGUF file that is named, or that of the model of this name.

    Raises :class:`ModelNotFound` and :class:`ModelFileError`.
    """
    from ondevice.models import find_file  # noqa: PLC0415 - only to look for it

    file = Path(model)
    is_path = model and (os.path.lexists(file) or looks_like_path(model))
    return file if is_path else find_file(model).path


#: Which model runs, and in how much of this machine.
LOAD = (
    click.option("--ctx", type=limits(Settings, "ctx"), metavar="TOKENS", help="Context length."),
    click.option("--kv-type", type=click.Choice(get_args(KVType)), help="Type of the KV cache."),
    click.option(
        "--prefer",
        type=click.Choice(get_args(Preference)),
        help="What matters most when RAM is short.",
    ),
    click.option(
        "--threads", type=limits(Settings, "threads"), help="Threads; default: physical cores."
    ),
    click.option("--ram", metavar="SIZE", help="Use at most this much RAM, such as 1.5G."),
)
MODEL = (
    click.option(
        "-m",
        "--model",
        metavar="NAME|FILE|URL",
        shell_complete=complete_model,
        help="A model's name (see 'ondevice models list'), a GGUF file, or a server's "
        "URL; auto, the default, is the best model on disk for this machine.",
    ),
    click.option(
        "--draft",
        metavar="NAME|FILE",
        shell_complete=complete_model,
        help="A small model of the same family, or a stack of one, that drafts for one "
        "larger than RAM; or none.",
    ),
)
SYSTEM = (click.option("-s", "--system", metavar="TEXT", help="System prompt; empty for none."),)
_USUAL = Sampling()
_SAMPLING_HELP = {
    "temperature": f"0 is deterministic; default: {_USUAL.temperature}.",
    "top_k": f"0 is off; default: {_USUAL.top_k}.",
    "top_p": f"1 is off; default: {_USUAL.top_p}.",
    "min_p": f"0 is off; default: {_USUAL.min_p}.",
    "repeat_penalty": f"1 is off; default: {_USUAL.repeat_penalty}.",
    "seed": "Makes the reply repeatable, if the chat so far and the RAM are the same too.",
}
#: Whether a model thinks before it answers. One setting, but as a flag it needs no value.
THINKING = (
    click.option(
        "--think/--no-think",
        default=None,
        help="Turn thinking on or off, where a model can do both.",
    ),
    click.option(
        "--think-tokens",
        type=limits(Settings, "thinking"),
        metavar="TOKENS",
        help="Think for at most this many tokens, then answer.",
    ),
)
#: How the next token is chosen.
SAMPLING = tuple(
    click.option(f"--{name.replace('_', '-')}", type=limits(Sampling, name), help=text)
    for name, text in _SAMPLING_HELP.items()
)


def flags(*groups: tuple[_Flag, ...], salvage: bool = False) -> Callable[[_Command], _Command]:
    """Give a command these flags; it gets them merged, as ``settings: Settings``.

    ``salvage``: where a setting is wrong it has its default, and the command gets ``problems``.
    """

    def give(command: _Command) -> _Command:
        @functools.wraps(command)
        def with_settings(**given: Any) -> Any:
            if salvage:
                settings, given["problems"] = config.salvage()
            else:
                settings = config.load()
            sampled = _lay_over(settings.sampling, given)
            sampling = check(sampled, Sampling)  # "nan" is in each range
            if given.get("system") is not None:  # asked for, so it goes before a persona
                settings = msgspec.structs.replace(settings, persona=None)
            if (thinking := _thinking(given)) is not None:
                settings = msgspec.structs.replace(settings, thinking=thinking)
            settings = _lay_over(settings, given)
            return command(settings=msgspec.structs.replace(settings, sampling=sampling), **given)

        flagged: _Command = with_settings
        for flag in reversed([flag for group in groups for flag in group]):
            flagged = flag(flagged)
        return flagged

    return give


#: All of them, for commands in which somebody converses with a model.
settings_flags = flags(MODEL, SYSTEM, THINKING, LOAD, SAMPLING)
chat_flags = flags(MODEL, SYSTEM, THINKING, LOAD, SAMPLING, salvage=True)


def _thinking(flags: dict[str, Any]) -> bool | int | None:
    """What the flags say of thinking, which are taken out of ``flags``; None: nothing."""
    think: bool | None = flags.pop("think", None)
    tokens: int | None = flags.pop("think_tokens", None)
    if think is False and tokens is not None:
        raise UsageError("Give --no-think or --think-tokens, not both.")
    return think if tokens is None else tokens


def _lay_over(record: _Record, flags: dict[str, Any]) -> _Record:
    """``record`` with the flags that were given; takes them out of ``flags``."""
    values = {name: flags.pop(name) for name in record.__struct_fields__ if name in flags}
    return msgspec.structs.replace(record, **{k: v for k, v in values.items() if v is not None})
