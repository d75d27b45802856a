"""The user's settings: flag before environment before file before default."""

from __future__ import annotations

import difflib
import math
import os
import re
import shutil
import tomllib
from collections.abc import Iterable, Iterator, MutableMapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ondevice import paths
from ondevice.checking import explain
from ondevice.errors import ConfigError, UsageError
from ondevice.messages import (
    ContextTokens,
    KVType,
    Preference,
    Sampling,
    Switch,
    ThinkingTokens,
    Threads,
)
from ondevice.ram.available import parse_size
from ondevice.system.folder_lock import folder_locked
from ondevice.system.typed_paths import looks_like_path, typed_path
from ondevice.system.whole_file import replacing
from ondevice.text import reason

AUTO = "auto"  # as the name of a model: the one that suits this machine best
FIRST = "smollm2-135m"  # what is fetched where there is no model yet: the smallest
_STATE_SHARE, _MOST_STATE = 20, 4_000_000_000  # of the free bytes one part, and bytes at most
_TABLES = ("sampling", "app")
_NO_VARIABLES = ("sampling", "app", "personas", "send_memories")  # they are tables
_NO_SETTINGS = {
    "ONDEVICE_HOME",
    "ONDEVICE_PASSPHRASE",
    "ONDEVICE_API_KEY",
    "ONDEVICE_TEST_MODELS",
    "ONDEVICE_SEED",
    "ONDEVICE_SEED_MINUTES",
}
_FREE = ("app.keys.", "personas.", "send_memories.")  # tables in which names may have points
_UNKNOWN = re.compile(r"There is no ([^ ]*)\.( Did you mean .*)?$", re.DOTALL)
_MOST_PROBLEMS = 20  # lines; more of them are no file of settings


def to_fetch(model: str) -> str:
    """What is fetched for the name of a model where it is not on disk."""
    return FIRST if model == AUTO else model


class App(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the terminal app looks and which keys it takes: the table ``app`` of the file."""

    theme: str = "textual-dark"  # one of those in the command palette
    linear: bool = False  # for screen readers: no borders, no drawn tables, who speaks in words
    mouse: bool = True  # False: it stays the terminal's own, which selects and pastes with it
    keys: dict[str, str] = {}  # id of a binding, such as "chat.new" → keys, such as "ctrl+t,f6"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``config.toml`` may hold; each key is also an environment variable.

    The key ``model`` is ``ONDEVICE_MODEL``, ``sampling.top_k`` is ``ONDEVICE_SAMPLING_TOP_K``.
    """

    model: str = AUTO  # a name, a GGUF file, a server's URL; auto: the best that is on disk
    system: str = "You are a helpful assistant."  # the system prompt; empty: none
    persona: str | None = None  # one of ``personas``, whose prompt stands in for ``system``
    ctx: ContextTokens | None = None  # tokens; None: at most 4096, what fits well
    models_folder: str | tuple[str, ...] = ()  # where more models are: a folder or several
    kv_type: KVType | None = None  # of the KV cache; None: f16 unless room is short
    prefer: Preference = "balanced"  # when not everything can be had: speed, quality, or both
    threads: Threads | None = None  # None: the physical cores
    ram: str | None = None  # a limit such as "1.5G"; None: what is available
    draft: str | None = None  # a smaller model, for a streamed one; "none"; None: it is chosen
    #: Whether models think that can do both, and after how many tokens at most the answer begins;
    #: None: as the model does by default.
    thinking: bool | Switch | ThinkingTokens | None = None
    memory: bool = True  # whether new chats are remembered and helped by what is remembered
    #: Whether what a model has computed of chats is kept on the disk, encrypted.
    keep_state: bool = True
    #: Million bytes for that; None: a twentieth of what is free, at most 4000.
    state_mb: Annotated[int, msgspec.Meta(ge=1, le=10**9)] | None = None
    #: Server, such as "host:8080" → whether memories may be sent there; one not named: it is asked.
    send_memories: dict[str, bool] = {}
    sampling: Sampling = Sampling()
    personas: dict[str, str] = {}  # name → system prompt
    app: App = App()

    def __post_init__(self) -> None:
        """Raises :class:`UsageError` for a ``ram`` that is no size, and an unknown ``persona``."""
        if isinstance(self.models_folder, str):
            folders = split_folders(self.models_folder)
            msgspec.structs.force_setattr(self, "models_folder", folders)
        if isinstance(self.thinking, str) or self.thinking == 0:
            msgspec.structs.force_setattr(self, "thinking", self.thinking == "on")
        if self.ram is not None:
            try:
                parse_size(self.ram)
            except UsageError as error:
                raise UsageError(f"ram: {error}") from error
        if self.persona is not None and self.persona not in self.personas:
            known = ", ".join(self.personas) or "none yet"
            raise UsageError(f"There is no persona {self.persona}. Known personas: {known}.")

    @property
    def ram_limit(self) -> int | None:
        """Bytes of RAM that a model may take; None: what is free."""
        return parse_size(self.ram) if self.ram else None

    def state_bytes(self, folder: Path) -> int:
        """Bytes for what models have computed of chats, on the disk of ``folder``; 0: none."""
        if not self.keep_state:
            return 0
        if self.state_mb is not None:
            return self.state_mb * 1_000_000
        try:
            free = shutil.disk_usage(folder).free
        except OSError:
            return 0
        return min(free // _STATE_SHARE, _MOST_STATE)

    @property
    def thinks(self) -> bool | None:
        """Whether models think that can do both; None: as they do by default."""
        return None if self.thinking is None else bool(self.thinking)

    @property
    def thinking_tokens(self) -> int | None:
        """Tokens of thinking after which an answer begins; None: no limit."""
        return None if isinstance(self.thinking, bool | str) else self.thinking

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where models are looked for beside the usual places."""
        assert not isinstance(self.models_folder, str)
        return tuple(Path(os.path.abspath(typed_path(each))) for each in self.models_folder)  # noqa: PTH100 - a link stays one

    @property
    def system_prompt(self) -> str:
        """That of the persona, or else ``system``; empty: none."""
        return self.personas[self.persona] if self.persona else self.system


def split_folders(text: str) -> tuple[str, ...]:
    """The folders in a line: one, or several as in ``PATH``, with ``:`` (or ``;``) in between."""
    text = text.strip()
    if text.startswith("file:") or typed_path(text).is_dir():
        return (_from_anywhere(text),)
    separator = ";" if os.name == "nt" or ";" in text else ":"
    each = [part.strip() for part in text.split(separator)]
    return tuple(map(_from_anywhere, filter(None, each)))


def join_folders(folders: Iterable[str]) -> str:
    """The line that :func:`split_folders` understands."""
    folders = list(folders)
    use_colon = os.name != "nt" and not any(":" in each for each in folders)
    return (":" if use_colon else ";").join(folders)


def _from_anywhere(folder: str) -> str:
    """As it was typed, unless that only holds in the folder where it was typed."""
    return folder if looks_like_path(folder) and folder[0] != "." else str(Path(folder).absolute())


def load(path: Path | None = None) -> Settings:
    """The settings from the file (``path``, or the usual place) with the environment over it.

    Raises :class:`ConfigError` naming the file or variable and the key that is wrong.
    """
    settings, problems = salvage(path)
    if problems:
        raise ConfigError(" ".join(problems))
    return settings


def salvage(path: Path | None = None) -> tuple[Settings, list[str]]:
    """As :func:`load`, but what is wrong has its default, and a sentence says so."""
    path = path or paths.config_file()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        text = ""
    except PermissionError as error:
        mend = "Make it readable for this user, or set ONDEVICE_HOME to another folder."
        return _with_environment({}, [f"{path}: {reason(error)}. {mend}"])
    except (OSError, UnicodeDecodeError) as error:
        return _with_environment(
            {}, [f"{path}: {reason(error)}. Fix the file or move it out of the way."]
        )
    values, problems = _tables(text, path)
    wrong = [
        f"{path}: {f'line {line}: ' if (line := _line(text, key)) else ''}{what}"
        for key, what in _drop_wrong(values)
    ]
    return _with_environment(values, problems + wrong)


def _with_environment(values: dict[str, Any], problems: list[str]) -> tuple[Settings, list[str]]:
    """Settings of right ``values`` and the environment, and the ``problems`` with those of that."""
    for variable, (table, name) in _variables().items():
        value = os.environ.get(variable, "")
        # Empty is not set; but an empty system prompt is none.
        if value or (name == "system" and variable in os.environ):
            tried = (
                {**values, table: {**values.get(table, {}), name: value}}
                if table
                else {**values, name: value}
            )
            try:
                _convert(tried)
            except ConfigError as error:
                problems.append(f"{variable}: {error}")
            else:
                values = tried
    return _convert(values), problems


def _tables(text: str, path: Path) -> tuple[dict[str, Any], list[str]]:
    """What is in a file of TOML, without the lines that are none, and a sentence for each."""
    lines = text.split("\n")
    problems: list[str] = []
    while True:
        try:
            return tomllib.loads("\n".join(lines)), problems
        except tomllib.TOMLDecodeError as error:
            found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
            number = int(found[1]) if found and found[1] else len(lines)
            what = str(error)[: found.start()] if found else str(error)
            if not lines[number - 1].strip() or len(problems) == _MOST_PROBLEMS:
                return {}, [*problems, f"{path}: {error}. Fix the file or move it out of the way."]
            problems.append(f"{path}: line {number}: This is not TOML: {what}.")
            lines[number - 1] = ""


def _drop_wrong(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Take out of ``values`` what cannot be; its keys, and what is wrong with each."""
    wrong: list[tuple[str, str]] = []
    for *tables, name in sorted(_keys(values), key=lambda key: key == ["persona"]):
        key = ".".join([*tables, name])
        table = values
        for one in tables:
            table = table[one]
        alone: dict[str, Any] = {name: table[name]}
        for one in reversed(tables):
            alone = {one: alone}
        if key == "persona":
            alone["personas"] = values.get("personas", {})
        try:
            _convert(alone)
        except ConfigError as error:
            del table[name]
            wrong.append((key, str(error).replace("[...]", f".{name}")))
    return wrong


def _keys(values: dict[str, Any]) -> Iterator[list[str]]:
    """Each key of a file: the tables it is in, then its name."""
    for name, value in values.items():
        if isinstance(value, dict) and name in _NO_VARIABLES:
            for key, inner in value.items():
                if name == "app" and key == "keys" and isinstance(inner, dict):
                    yield from ([name, key, one] for one in inner)
                else:
                    yield [name, key]
        else:
            yield [name]


def _line(text: str, key: str) -> int | None:
    """The number of the line of ``text`` that sets ``key``, where it is to be seen."""
    table = ""
    for number, line in enumerate(text.split("\n"), 1):
        name, _, value = line.partition("=")
        if header := re.fullmatch(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?", line):
            table = _bare(header[1])
            if table == key:
                return number
        elif value and key in (_bare(f"{table}.{name}"), _bare(name) if not table else ""):
            return number
    return None


def _bare(key: str) -> str:
    return re.sub(r"[\s\"']", "", key)


def misspelt() -> dict[str, str]:
    """Variables of the environment that look like settings and are none → which may be meant."""
    known = _variables()
    others = [name for name in os.environ if name.startswith("ONDEVICE_") and name not in known]
    near = {name: difflib.get_close_matches(name, known, 1) for name in others}
    return {name: meant[0] for name, meant in near.items() if meant and name not in _NO_SETTINGS}


def _variables() -> dict[str, tuple[str, str]]:
    """Each environment variable that is a setting → its table, and its name there."""
    names = [("", name) for name in Settings.__struct_fields__ if name not in _NO_VARIABLES]
    names += [("sampling", name) for name in Sampling.__struct_fields__]
    names += [("app", name) for name in ("theme", "linear", "mouse")]
    return {
        f"ONDEVICE_{table}_{name}".replace("__", "_").upper(): (table, name)
        for table, name in names
    }


def change(settings: Settings, key: str, text: str, path: Path | None = None) -> Settings:
    """``settings`` with one changed, in the file as well, whose comments and layout stay.

    ``key`` is such as ``model`` or ``sampling.top_k``; an empty ``text`` brings the default back.
    Raises :class:`ConfigError` when there is no such key, or for a value or a file that is wrong.
    """
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415 - see below

    path = path or paths.config_file()
    text = text.encode("utf-8", "replace").decode()  # a file has no half characters
    values = msgspec.to_builtins(settings)
    _put(values, key, text or None)
    try:
        changed = _convert(values)
    except ConfigError as error:  # it was typed: quotes around figures would puzzle
        raise ConfigError(str(error).replace(f', not "{text}"', f", not {text}")) from error
    try:
        folder = paths.ensure_private(path.parent)
        with folder_locked(folder):  # another window may change another setting
            _write(path, key, msgspec.to_builtins(changed) if text else None)
    except OSError as error:
        raise ConfigError(
            f"{path} could not be written: {reason(error)}. Check its folder and the space on "
            "that disk. The setting is unchanged."
        ) from error
    except (UnicodeDecodeError, TOMLKitError) as error:
        raise ConfigError(
            f"{path}: {reason(error)}. Fix the file or move it out of the way."
        ) from error
    return changed


def _write(path: Path, key: str, values: Any) -> None:
    """Change one setting in the file, or with None take it out."""
    import tomlkit  # noqa: PLC0415 - the start of every command would wait for it

    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        document = tomlkit.document()
    value = values
    if values:
        for name in _names(key):
            value = value[name]
    _put(document, key, value)  # whatever else in it may be wrong
    with replacing(path, sync=True) as file:
        file.write(tomlkit.dumps(document).encode())


def flat(settings: Settings) -> dict[str, Any]:
    """Each key as :func:`change` takes it → its value."""
    values: dict[str, Any] = {}
    for name, value in msgspec.to_builtins(settings).items():
        inner = {f"{name}.{key}": one for key, one in value.items()} if name in _TABLES else None
        values |= inner if inner is not None else {name: value}
    return values


def _put(values: MutableMapping[str, Any], key: str, value: Any) -> None:
    """Set a key in its table, or take it away for None."""
    *tables, name = _names(key)
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, MutableMapping):
            raise ConfigError(f"There is no setting {key}: {table} is not a table of settings.")
    if value is None:
        values.pop(name, None)
    else:
        values[name] = value


def _names(key: str) -> list[str]:
    """The tables and the name in a key."""
    free = next((table for table in _FREE if key.startswith(table)), None)
    return key.split(".", free.count(".") if free else -1)


def _meant(key: str) -> str:
    """The setting of whatever table that has about this name, or those of its own table."""
    table, _, name = key.rpartition(".")
    known = {full.rpartition(".")[2]: full for full in flat(Settings())}
    if near := difflib.get_close_matches(name, known, 1):
        return f"Did you mean {known[near[0]]}?"
    names = [full for full in known.values() if full.rpartition(".")[0] == table]
    return f"Known settings: {', '.join(names)}."


def _convert(values: dict[str, Any]) -> Settings:
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        what = explain(error, Settings, values)
        if unknown := _UNKNOWN.match(what):
            what = f"There is no setting {unknown[1]}.{unknown[2] or ''}"
            if not unknown[2]:
                what = f"{what} {_meant(unknown[1])}"
        raise ConfigError(what) from error
    except UsageError as error:
        raise ConfigError(str(error)) from error
    for key, value in flat(settings).items():
        if isinstance(value, float) and not math.isfinite(value):  # it is in each range
            raise ConfigError(f"{key} must be a number, not {value}.")
    return settings
