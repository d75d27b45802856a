"""``ondevice ask``: one answer on standard output, everything else on standard error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click
import msgspec

from ondevice.cli._input import argument, piped, small_file
from ondevice.cli._json import print_json
from ondevice.cli._kernels import compile_once
from ondevice.cli._options import FilePath, complete_file, limits, settings_flags
from ondevice.config import Settings
from ondevice.engine import AnyEngine, EngineLike
from ondevice.errors import ContextError, FileError, UsageError
from ondevice.json_schema import compile_schema
from ondevice.messages import (
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
from ondevice.planning.choice import choose
from ondevice.text import printable


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
@click.option(
    "--max-tokens", type=limits(Generate, "max_tokens"), help="Stop after this many tokens."
)
@click.option("--stop", multiple=True, metavar="TEXT", help="Stop before this text; repeatable.")
@click.option(
    "--grammar",
    type=FilePath(),
    help=("A GBNF grammar file that the answer follows."),
)
@click.option(
    "--schema",
    metavar="JSON|FILE",
    shell_complete=complete_file,
    help="A JSON schema that the answer follows.",
)
@click.option(
    "--fit", is_flag=True, help="If the text is too long, send only the relevant parts that fit."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with statistics.")
def command(
    question: tuple[str, ...],
    settings: Settings,
    max_tokens: int | None,
    stop: tuple[str, ...],
    grammar: Path | None,
    schema: str | None,
    fit: bool,
    as_json: bool,
) -> int:
    """Answer QUESTION. Piped text is added to the question, or is the question if there is none.

    \b
      ondevice ask "Why is the sky blue?"
      git diff | ondevice ask "Write a commit message for this."
      ondevice ask --fit "What was decided about the roof?" <minutes.txt
      ondevice ask --schema '{"type": "object"}' --json "Three facts about Ghent."
    """
    if grammar is not None and schema is not None:
        raise UsageError("Give a grammar or a schema, not both.")
    if sys.stdout is None:
        raise FileError("The answer cannot be written: standard output is closed.")
    system = argument(settings.system_prompt, "The system prompt")
    asked, given = argument(" ".join(question), "The question"), piped()
    if not (asked.strip() or given.strip()):
        raise UsageError('Ask something: ondevice ask "…", or send text through a pipe.')
    request = Generate(
        turns=_turns(system, asked, given),
        sampling=settings.sampling,
        max_tokens=max_tokens,
        stop=tuple(argument(text, "--stop") for text in stop),
        grammar=_grammar(grammar) if grammar is not None else None,
        json_schema=_schema(schema) if schema is not None else None,
        thinking=settings.thinks,
        thinking_tokens=settings.thinking_tokens,
    )
    compile_once()
    with closing(AnyEngine()) as engine:
        choice = choose(settings)
        wanted = choice.request
        if choice.why:
            _note(choice.why)
        if request.json_schema is not None and not wanted.is_remote:
            compile_schema(request.json_schema)  # refused before the model is loaded
        loaded = engine.load(wanted)
        if wanted.is_remote:
            _note(f"the question goes to {loaded.name}.")
        if loaded.streamed_bytes or loaded.kv_type not in ("f16", settings.kv_type):
            _note(loaded.plan)
        if fit:
            request = msgspec.structs.replace(request, turns=_fitted(engine, system, asked, given))
        try:
            answer = _stream(engine, request, loaded, quiet=as_json)
        except ContextError as error:
            hint = "" if fit else " Add --fit to send only the relevant parts that fit."
            raise ContextError(f"{error} Set the size of the context with --ctx.{hint}") from error
    if as_json:
        print_json(answer)
    return 0


def _note(text: str) -> None:
    """Say something beside the answer. Names of models and servers are in it."""
    click.echo(f"ondevice: {printable(text)}", err=True)


def _turns(system: str, question: str, given: str) -> tuple[Turn, ...]:
    text = f"{question}\n\n{given}" if question and given else question or given
    return (*((Turn("system", system),) if system else ()), Turn("user", text))


def _fitted(engine: EngineLike, system: str, question: str, given: str) -> tuple[Turn, ...]:
    """The question, with as much of what was ``given`` as fits: of the two, the longer one."""
    from ondevice.chats import fitting  # noqa: PLC0415 - it brings the store along

    def frame(texts: Sequence[str]) -> tuple[Turn, ...]:
        return _turns(system, question, texts[0]) if given else _turns(system, texts[0], "")

    texts = [given or question]
    if fitting.measure(engine, frame, texts).fits:
        return frame(texts)
    how: fitting.How = "relevant" if question and given else "beginning"
    kept = fitting.shorten(engine, frame, texts, question, how)
    if kept[0]:
        part = "the parts most relevant to the question" if how == "relevant" else "its beginning"
        _note(f"the text is too long for the model, so ondevice sent only {part}.")
    return frame(kept if kept[0] else texts)


def _grammar(path: Path) -> str:
    grammar = small_file(path)
    if not grammar.strip():
        raise FileError(f"{path} is empty.")
    return grammar


def _schema(text: str) -> str:
    if not text.strip():
        raise UsageError("The schema is empty.")
    written = text.lstrip().startswith(("{", "["))
    schema = argument(text, "The schema") if written else small_file(Path(text))
    try:
        msgspec.json.decode(schema)
    except (msgspec.DecodeError, RecursionError) as error:
        if written:
            raise UsageError(f"The schema is not JSON: {error}.") from error
        raise FileError(f"{text} is not JSON: {error}.") from error
    return schema


def _stream(engine: EngineLike, request: Generate, loaded: Loaded, *, quiet: bool) -> Answer:
    parts: dict[str, list[str]] = {"answer": [], "thinking": []}
    notices: list[str] = []
    finished: Finished | None = None
    progress = sys.stderr.isatty() and not quiet
    #: What a terminal would obey is left out where there is one; a file gets each character.
    shown = {
        "answer": printable if sys.stdout.isatty() else str,
        "thinking": printable if sys.stderr.isatty() else str,
    }
    for event in engine.generate(request):
        match event:
            case Chunk():
                parts[event.part].append(event.text)
                if not quiet:
                    text = shown[event.part](event.text)
                    click.echo(text, nl=False, err=event.part == "thinking")
            case Notice():
                notices.append(event.text)
                _note(event.text)
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
