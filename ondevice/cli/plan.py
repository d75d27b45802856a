"""``ondevice plan``: how a model is run in the RAM that there is, and why."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec
from click.core import ParameterSource

from ondevice.cli._json import print_json
from ondevice.cli._kernels import compile_once
from ondevice.cli._options import LOAD, MODEL, complete_model, flags
from ondevice.config import Settings
from ondevice.errors import NativeError, UsageError
from ondevice.gguf import runnable
from ondevice.gguf.quality import params_words
from ondevice.holding import speeds
from ondevice.holding.machine import Machine
from ondevice.holding.plan import Plan
from ondevice.messages import Load
from ondevice.planning.choice import choose
from ondevice.planning.fit import SpeedFrom, loss_words, plan_of, speed_of, speed_words
from ondevice.planning.measuring import measure as measure_speeds
from ondevice.planning.planner import why
from ondevice.text import printable, size

_BAR = 60  # cells


class PlanReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``--json`` prints of a plan."""

    model: str
    kind: str  # "resident", "window" or "stack"
    why: str
    n_ctx: int  # tokens
    kv_type: str
    predicts: bool  # a block of the model itself drafts
    drafter: str | None
    peak_bytes: int
    weights_bytes: int  # in RAM
    streamed_bytes: int  # read when they are needed
    left_out_bytes: int  # of a stack
    kv_bytes: int
    compute_bytes: int
    engine_bytes: int
    drafter_bytes: int
    usable_bytes: int
    tokens_per_second: float
    first_token_s: float  # after a prompt of 512 tokens
    effective_params: float  # the quality: of an unquantized model that is about as good
    quantization_loss: float  # of 1, in that: what quantizing the model has cost
    speed_from: SpeedFrom
    speed_at: float  # seconds since 1970: when that was measured
    measured: bool  # False: the speeds of this machine are guessed, see ``ondevice plan --measure``

    @classmethod
    def of(cls, chosen: Plan, load: Load, machine: Machine) -> PlanReport:
        ram, known = machine.ram, machine.speeds
        speed_from, speed_at = speed_of(chosen, load, known)
        return cls(
            model=chosen.file.name,
            kind=chosen.kind,
            why=why(chosen, ram, load.n_ctx),
            n_ctx=chosen.n_ctx,
            kv_type=chosen.kv_type,
            predicts=chosen.predicts,
            drafter=chosen.drafter.file.name if chosen.drafter else None,
            peak_bytes=chosen.peak_bytes,
            weights_bytes=chosen.resident_bytes,
            streamed_bytes=chosen.streamed_bytes,
            left_out_bytes=chosen.left_out_bytes,
            kv_bytes=chosen.need.kv,
            compute_bytes=chosen.need.compute,
            engine_bytes=chosen.need.engine,
            drafter_bytes=chosen.drafter_bytes,
            usable_bytes=ram.usable,
            tokens_per_second=chosen.tokens_per_second,
            first_token_s=chosen.first_token_s,
            effective_params=chosen.effective_params,
            quantization_loss=1 - chosen.quality,
            speed_from=speed_from,
            speed_at=speed_at,
            measured=known is not speeds.USUAL,
        )


@click.command()
@click.argument("name", metavar="[MODEL]", required=False, shell_complete=complete_model)
@flags(MODEL, LOAD)
@click.option(
    "--measure", is_flag=True, help="Measure this machine's speed first, even if it is known."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(settings: Settings, name: str | None, measure: bool, as_json: bool) -> None:
    """Show how MODEL would be run now, and why; by default the model of the settings.

    \b
      ondevice plan
      ondevice plan qwen3-4b --ram 2G
    """
    source = click.get_current_context().get_parameter_source("model")
    if name is not None and source is ParameterSource.COMMANDLINE:
        raise UsageError("Name the model once: as MODEL, or with -m.")
    choice = choose(settings, name)
    if choice.model.place == "server":
        raise UsageError("A model on a server uses no RAM here.")
    file = runnable.read(choice.model.path)  # before measuring, which takes long
    known = speeds.known()
    if machine_speeds(measure) != known:  # the best model depends on them
        choice = choose(settings, name)
        file = runnable.read(choice.model.path)
    machine = Machine.now(settings.ram_limit)
    chosen = plan_of(file, choice.request, machine)
    report = PlanReport.of(chosen, choice.request, machine)
    if as_json:
        print_json(report)
        return
    for line in _lines(report):
        click.echo(printable(line))


def _lines(report: PlanReport) -> Sequence[str]:
    parts = [
        ("weights", report.weights_bytes),
        ("KV cache", report.kv_bytes),
        ("drafter", report.drafter_bytes),
        ("buffers", report.compute_bytes),
        ("engine", report.engine_bytes),
        ("free", max(0, report.usable_bytes - report.peak_bytes)),
    ]
    total = sum(n_bytes for _, n_bytes in parts)
    bar = "".join(
        mark * round(n_bytes / total * _BAR)
        for mark, (_, n_bytes) in zip("█▓▒░▪·", parts, strict=True)
    )
    source = speed_words(report.speed_from, report.speed_at)
    digits = f"{report.tokens_per_second:.{1 if report.tokens_per_second >= 1 else 2}f}"
    guess = source if report.measured else f"{source}; --measure measures this machine"
    return [
        f"{report.model}: {report.why}",
        "",
        f"  {bar}",
        "  "
        + "   ".join(
            f"{mark} {name} {size(n_bytes)}"
            for mark, (name, n_bytes) in zip("█▓▒░▪·", parts, strict=True)
            if n_bytes
        ),
        "",
        f"  context      {report.n_ctx} tokens, {report.kv_type} KV cache",
        f"  RAM          {size(report.peak_bytes)} at most, of "
        f"{size(report.usable_bytes)} available",
        f"  speed        {digits} tokens/s; {report.first_token_s:.1f} s to "
        f"the first token of a reply to 512 tokens",
        f"               {guess}",
        f"  quality      about as good as an unquantized {params_words(report.effective_params)} "
        f"model; quantization costs {loss_words(report.quantization_loss)}",
    ]


def machine_speeds(again: bool) -> speeds.Speeds:
    """The machine's speeds, measured now if they are not known or wanted ``again``."""
    known = speeds.known()
    if not again and known is not speeds.USUAL:
        return known
    compile_once()
    click.echo("Measuring the processor and the disk (about 15 seconds) …", err=True)
    try:
        measured = measure_speeds()
    except NativeError as error:
        if again:
            raise
        click.echo(f"ondevice: {error} The speeds used are guesses.", err=True)
        return known
    if measured.busy:
        click.echo("The machine is busy, so these speeds will be measured again later.", err=True)
    return measured
