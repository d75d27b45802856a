"""``ondevice ask``: one answer on standard output, everything else on standard error."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import closing
from pathlib import Path

import click
import msgspec

from ondevice.choice import choose
from ondevice.cli._options import settings_flags
from ondevice.config import Settings
from ondevice.engine import AnyEngine, EngineLike
from ondevice.engine.messages import (
    Chunk,
    Finished,
    FinishReason,
    Generate,
    Loaded,
    Notice,
    PromptProgress,
    Statistics,
    Turn,
)
from ondevice.errors import UsageError
from ondevice.terminal import printable


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What ``--json`` prints."""

    answer: str
    thinking: str
    notices: list[str]
    finish_reason: FinishReason
    statistics: Statistics
    prompt_per_second: float  # new prompt tokens
    generated_per_second: float  # tokens
    model: Loaded


@click.command()
@click.argument("question", nargs=-1)
@settings_flags
@click.option("--max-tokens", type=click.IntRange(min=1), help="End the answer after so many.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; repeatable.")
@click.option("--grammar", type=click.Path(path_type=Path), help="A GBNF file the answer obeys.")
@click.option("--schema", metavar="JSON|FILE", help="A JSON schema that the answer obeys.")
@click.option("--think/--no-think", default=None, help="For models that can do both.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with statistics.")
def command(
    question: tuple[str, ...],
    settings: Settings,
    max_tokens: int | None,
    stop: tuple[str, ...],
    grammar: Path | None,
    schema: str | None,
    think: bool | None,
    as_json: bool,
) -> int:
    """Answer QUESTION. What comes through a pipe follows it, or is the question if there is none.

    \b
      ondevice ask "Why is the sky blue?"
      git diff | ondevice ask "Write a commit message for this."
      ondevice ask --schema '{"type": "object"}' --json "Three facts about Ghent."
    """
    if grammar and schema:
        raise UsageError("Give a grammar or a schema, not both.")
    request = Generate(
        turns=_turns(settings.system_prompt, " ".join(question)),
        sampling=settings.sampling,
        max_tokens=max_tokens,
        stop=stop,
        grammar=_read(grammar) if grammar else None,
        json_schema=_schema(schema) if schema else None,
        thinking=think,
    )
    with closing(AnyEngine()) as engine:
        choice = choose(settings)
        wanted = choice.request
        if choice.why:
            click.echo(f"ondevice: {choice.why}", err=True)
        loaded = engine.load(wanted)
        if wanted.is_remote:
            click.echo(f"ondevice: the question goes to {loaded.name}.", err=True)
        if loaded.streamed_bytes or loaded.kv_type not in ("f16", settings.kv_type):
            click.echo(f"ondevice: {loaded.plan}", err=True)
        answer = _stream(engine, request, loaded, quiet=as_json)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(answer)).decode() + "\n")
    return 0


def _turns(system: str, question: str) -> tuple[Turn, ...]:
    piped = _piped()
    text = f"{question}\n\n{piped}" if question and piped else question or piped
    if not text.strip():
        raise UsageError('Ask something: ondevice ask "…", or send text through a pipe.')
    return (*((Turn("system", system),) if system else ()), Turn("user", text))


def _piped() -> str:
    """What standard input holds if it is a pipe or a file, and not a terminal or /dev/null."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return ""
    return sys.stdin.read().strip() if stat.S_ISFIFO(mode) or stat.S_ISREG(mode) else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error


def _schema(text: str) -> str:
    return text if text.lstrip().startswith(("{", "[")) else _read(Path(text))


def _stream(engine: EngineLike, request: Generate, loaded: Loaded, *, quiet: bool) -> Answer:
    parts: dict[str, list[str]] = {"answer": [], "thinking": []}
    notices: list[str] = []
    finished: Finished | None = None
    progress = sys.stderr.isatty() and not quiet
    shown = printable if sys.stdout.isatty() else str
    for event in engine.generate(request):
        match event:
            case Chunk():
                parts[event.part].append(event.text)
                if not quiet:
                    click.echo(shown(event.text), nl=False, err=event.part == "thinking")
            case Notice():
                notices.append(event.text)
                click.echo(f"ondevice: {event.text}", err=True)
            case PromptProgress() if progress:
                done = event.done < event.total
                line = f"\rReading the prompt: {event.done}/{event.total} tokens" if done else "\r"
                click.echo(f"{line:<60}\r", nl=False, err=True)
            case Finished():
                finished = event
    if not quiet:
        click.echo()
    assert finished is not None
    return Answer(
        answer="".join(parts["answer"]).strip(),
        thinking="".join(parts["thinking"]).strip(),
        notices=notices,
        finish_reason=finished.reason,
        statistics=finished.statistics,
        prompt_per_second=finished.statistics.prompt_per_second,
        generated_per_second=finished.statistics.generated_per_second,
        model=loaded,
    )
