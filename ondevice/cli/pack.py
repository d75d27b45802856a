"""``ondevice pack``: make a stack of a model."""

from __future__ import annotations

import io
import sys
import time
from functools import partial
from pathlib import Path

import click

from ondevice import gguf, llama
from ondevice.cli._input import stopped_by_ctrl_c
from ondevice.cli._json import print_json
from ondevice.cli._kernels import compile_once
from ondevice.cli._options import FilePath, WholeNumber, complete_model, model_file
from ondevice.errors import FileError, UsageError
from ondevice.holding.stack import StackFile
from ondevice.holding.stack.pack import PackProgress, pack
from ondevice.text import printable, reason, size

_FINE = ("F32", "F16", "BF16", "Q8_0")
_DOING = {
    "generating": "Generating a calibration text",
    "calibrating": "Calibrating",
    "encoding": "Packing",
    "measuring": "Measuring the effect of each part",
    "writing": "Writing",
}


@click.command(name="pack")
@click.argument("model", metavar="NAME|FILE", shell_complete=complete_model)
@click.option(
    "-o",
    "--output",
    type=FilePath(),
    help="File to write; default: FILE.stack.gguf, or NAME.stack.gguf here.",
)
@click.option(
    "--calibration",
    type=FilePath(),
    metavar="TEXTFILE",
    help=(
        "Calibration text, like what the model will see; default: built-in prose, "
        "dialogue and code."
    ),
)
@click.option(
    "--own-calibration",
    is_flag=True,
    help="Let the model write the calibration text; slow for a model larger than RAM.",
)
@click.option("--force", is_flag=True, help="Replace the stack's file if it exists.")
@click.option("--jobs", type=WholeNumber(min=1), help="Threads; default: physical cores.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    model: str,
    output: Path | None,
    calibration: Path | None,
    own_calibration: bool,
    force: bool,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Pack a model into a stack: a file of which any prefix is a working model.

    F16, BF16 and Q8_0 models are the best sources. If packing is interrupted, run the command again
    to resume it.
    """
    path = model_file(model)
    file = gguf.read(path)
    if not file.quantization.startswith(_FINE):
        click.echo(
            f"{printable(path.name)} is {file.quantization}: it is already quantized, "
            "and that loss cannot be undone. F16, BF16 and Q8_0 models make better "
            "stacks.",
            err=True,
        )
    if calibration and own_calibration:
        raise UsageError("Give either --calibration or --own-calibration, not both.")
    beside = path.with_name(f"{path.stem}.stack.gguf")
    target = output or (beside if path == Path(model) else Path(f"{model}.stack.gguf"))
    if target.exists() and target.samefile(path):
        raise UsageError("A model cannot be packed into its own file. Name another file with -o.")
    if target.exists() and not (force and target.is_file()):  # said before hours of work
        raise FileError(f"{target} exists. Replace it with --force, or name another file with -o.")
    if not target.parent.is_dir():
        raise FileError(f"There is no folder {target.parent}. Make it, or name another with -o.")
    text = _text_of(calibration) if calibration else None
    compile_once()
    started = time.monotonic()
    line = _ProgressLine(shown=sys.stderr.isatty() and not as_json)
    llama.start(io.StringIO())  # llama.cpp's own lines would tear ours
    try:
        with stopped_by_ctrl_c(partial(llama.interrupt, True)) as stopped:

            def go_on(progress: PackProgress) -> None:
                if stopped.is_set():
                    raise KeyboardInterrupt
                line.show(progress)

            pack(
                path,
                target,
                calibration=text,
                own_calibration=own_calibration,
                jobs=jobs,
                on_progress=go_on,
            )
    except llama.Interrupted as error:
        raise KeyboardInterrupt from error
    except OSError as error:
        raise FileError(
            f"{path.name} could not be packed into {target}: {reason(error)}. What is done is "
            "kept, and the same command resumes it."
        ) from error
    finally:
        llama.interrupt(False)
        line.end()
    stack = StackFile.of(gguf.read(target))
    if as_json:
        figures = {
            "path": str(target),
            "base_bytes": stack.base_end,
            "bytes": stack.gguf.file_bytes,
            "blocks": len(stack.blocks),
            "seconds": round(time.monotonic() - started, 1),
        }
        print_json(figures)
        return
    click.echo(
        f"{printable(str(target))}: {size(stack.base_end)} to "
        f"{size(stack.gguf.file_bytes)} in {len(stack.blocks)} steps. See it with: "
        f"ondevice stack show {printable(str(target))}"
    )


def _text_of(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace")
    except OSError as error:
        raise FileError(f"{file} cannot be read: {reason(error)}.") from error


class _ProgressLine:
    """One line on standard error that says what is done and how long that will take."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._stage = ""
        self._since = 0.0
        self._width = 0

    def show(self, progress: PackProgress) -> None:
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._since = progress.stage, now
        if not self._shown:
            return
        left = ""
        if 0 < progress.done < 1:
            seconds = (now - self._since) * (1 - progress.done) / progress.done
            left = f", {seconds // 60:.0f}:{seconds % 60:02.0f} left"
        self._write(f"{_DOING[progress.stage]}: {progress.done:.0%}{left}")

    def end(self) -> None:
        if self._shown:
            self._write("")
            click.echo("\r", nl=False, err=True)

    def _write(self, line: str) -> None:
        """In place of what is there; any terminal knows spaces."""
        click.echo(f"\r{line.ljust(self._width)}", nl=False, err=True)
        self._width = len(line)
