"""``ondevice ask`` with whatever comes in, and what it lets out."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_model

from ondevice.cli import run
from ondevice.cli._input import confirm
from ondevice.errors import NativeError, UsageError
from ondevice.text import printable, printable_json

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
ASK = [sys.executable, "-m", "ondevice", "ask"]
ALLOWED = re.compile(rb"\x1b\[0m|\r\n|\n|\t")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags for a small model that answers at once."""
    folder = tmp_path_factory.mktemp("tiny")
    grammar = folder / "yes.gbnf"
    grammar.write_text('root ::= "yes"')
    model = tiny_model.write(folder / "tiny.gguf")
    return ["-m", str(model), "-s", "", "--grammar", str(grammar)]


def ask(*arguments: str | bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
    given = {} if "input" in options else {"stdin": subprocess.DEVNULL}
    return subprocess.run(
        [*ASK, *arguments],
        check=False,
        timeout=60,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **given, **options},
    )


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_text_that_is_not_utf_8_is_answered_with_a_note(tiny: list[str], locale: str) -> None:
    environment = {**os.environ, "LC_ALL": locale}
    done = ask(*tiny, input=b"caf\xe9", env=environment)
    assert (done.returncode, done.stdout) == (0, b"yes\n")
    assert b"Standard input is not valid UTF-8" in done.stderr
    done = ask(*tiny, b"caf\xe9", "-s", b"\xff", "--stop", b"\xfe", env=environment)
    assert (done.returncode, done.stdout) == (0, b"yes\n")
    assert b"The question is not valid UTF-8" in done.stderr


@posix
def test_a_socket_is_read_as_a_pipe_is(tiny: list[str]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"word " * 20)
        ours.shutdown(socket.SHUT_WR)
        done = ask(*tiny, "--json", "Hi", stdin=theirs.fileno())
    assert b'"prompt_tokens": 1' in done.stdout, "more than 100: each letter is a token"


@posix
def test_a_pipe_that_stays_open_is_waited_for_with_a_word(tiny: list[str]) -> None:
    process = subprocess.Popen(
        [*ASK, *tiny], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    assert b"waiting for standard input to end" in process.stderr.readline()
    assert process.communicate(b"Hi", timeout=60)[0] == b"yes\n"


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full")
def test_output_that_goes_nowhere_ends_with_a_sentence(tiny: list[str]) -> None:
    command = " ".join([*ASK, *map(repr, tiny), "Hi"])
    for closing, code in ((">&-", 1), (">/dev/full", 1), ("2>&- >/dev/null", 0), ("<&-", 0)):
        done = subprocess.run(
            f"{command} {closing}", shell=True, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, closing
        assert "Traceback" not in done.stderr
        assert bool(done.stderr) == bool(code)


@posix
def test_schemas_and_grammars_are_files_of_a_bounded_size(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    large, empty = tmp_path / "large", tmp_path / "empty"
    large.write_text(" " * 1_000_001)
    empty.touch()
    latin = tmp_path / "latin"
    latin.write_bytes(b"root ::= \xe9")
    for flag in ("--schema", "--grammar"):
        for path, words in (
            ("/dev/zero", "is a device"),
            (tmp_path, "cannot be read|is a folder"),
            (large, "larger than 1 MB"),
            (empty, "is empty|not JSON"),
            (latin, "cannot be read"),
        ):
            assert run(["ask", flag, str(path), "x"]) == 1
            assert re.search(words, capfd.readouterr().err), path
    assert run(["ask", "--schema", '{"a"', "x"]) == 2
    assert "not JSON" in capfd.readouterr().err


@posix
def test_a_pipe_as_a_schema_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ondevice.cli._input._LATE_S", 0.1)
    os.mkfifo(tmp_path / "pipe")
    assert run(["ask", "--schema", str(tmp_path / "pipe"), "x"]) == 1
    assert re.search("does not end|not JSON", capfd.readouterr().err)


@posix
def test_nothing_that_a_terminal_obeys_gets_through_beside_the_answer(
    tiny: list[str], tmp_path: Path
) -> None:
    """The answer goes into a file, thinking and notices to the terminal."""
    from pty_terminal import PtyTerminal

    grammar = tmp_path / "thinking.gbnf"
    grammar.write_text(r'root ::= "<think>\x1b]0;owned\x07\x1b[31mhm</think>\x1b[1mhi"')
    out = tmp_path / "out"
    flags = " ".join(map(repr, [*tiny[:-1], str(grammar)]))
    command = ["sh", "-c", f"{' '.join(ASK)} {flags} Hi > {out}"]
    with PtyTerminal(command, env=dict(os.environ)) as terminal:
        assert terminal.until_the_end() == 0
    assert b"hm" in terminal.written
    assert b"\x1b" not in ALLOWED.sub(b"", terminal.written)
    assert out.read_bytes().strip() == b"\x1b[1mhi"


def test_json_holds_nothing_that_a_terminal_obeys() -> None:
    assert printable_json('{"a":"\x9b31m\x7f é"}'.encode()) == '{"a":"\\u009b31m\\u007f é"}'
    hidden = "\u202eback\U000e0041"
    assert json.loads(printable_json(json.dumps(hidden, ensure_ascii=False).encode())) == hidden
    assert printable_json(hidden.encode()).isascii()
    assert printable(hidden) == "back"


def test_a_plan_looks_at_the_model_before_it_measures_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def measure() -> None:
        raise AssertionError

    monkeypatch.setattr("ondevice.cli.plan.measure_speeds", measure)
    (tmp_path / "notes.gguf").write_text("notes")
    for name in (str(tmp_path / "notes.gguf"), str(tmp_path / "missing.gguf"), "nobody/knows"):
        assert run(["plan", "--measure", name]) != 0
        assert "Measuring" not in capfd.readouterr().err


def test_a_plan_is_made_where_the_machine_cannot_be_measured(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def measure() -> None:
        raise NativeError("It takes too long.")

    monkeypatch.setattr("ondevice.cli.plan.measure_speeds", measure)
    assert run(["plan", *tiny[:2]]) == 0
    assert "It takes too long. The speeds used are guesses." in capfd.readouterr().err
    assert run(["plan", "--measure", *tiny[:2]]) == 1


@posix
def test_without_a_home_to_write_to_it_answers(tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = ask(*tiny, "Hi", env={**os.environ, "ONDEVICE_HOME": str(tmp_path / "file" / "home")})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"yes\n", b"")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CTX", "-5"),
        ("THREADS", "5000"),
        ("SAMPLING_TEMPERATURE", "nan"),
        ("SAMPLING_TOP_P", "9"),
        ("SAMPLING_SEED", "-1"),
        ("SAMPLING_REPEAT_PENALTY", "0"),
        ("RAM", "0"),
        ("RAM", "9" * 400 + "G"),
    ],
)
def test_settings_are_checked_for_range_as_flags_are(
    variable: str,
    value: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    flag = f"--{variable.removeprefix('SAMPLING_').lower().replace('_', '-')}"
    assert run(["ask", flag, value, "x"]) == 2
    assert "Traceback" not in capfd.readouterr().err
    with monkeypatch.context() as patch:
        patch.setenv(f"ONDEVICE_{variable}", value)
        assert run(["plan"]) == 2
        assert f"ONDEVICE_{variable}: " in capfd.readouterr().err
    table = "[sampling]\n" if "SAMPLING" in variable else ""
    name = variable.removeprefix("SAMPLING_").lower()
    (home / "config").mkdir(parents=True)
    written = f'"{value}"' if name == "ram" else value
    (home / "config" / "config.toml").write_text(f"{table}{name} = {written}\n")
    assert run(["plan"]) == 2
    assert name in capfd.readouterr().err


def test_a_setting_that_is_misspelt_is_named_with_the_one_that_is_meant(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (home / "config").mkdir(parents=True)
    (home / "config" / "config.toml").write_text("modle = 'x'\n")
    assert run(["plan"]) == 2
    assert "There is no setting modle. Did you mean model?" in capfd.readouterr().err


def test_an_empty_variable_is_not_set(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ONDEVICE_CTX", "")
    monkeypatch.setenv("ONDEVICE_MODEL", "")
    assert run(["ask", "x"]) == 1
    assert "ondevice models pull" in capfd.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "-s", "x"],
        ["plan", "--top-k", "1"],
        ["fit", "--seed", "1"],
        ["plan", "a", "-m", "b"],
    ],
)
def test_flags_that_would_do_nothing_are_refused(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert "Traceback" not in capfd.readouterr().err


def test_text_that_is_too_long_is_refused_with_what_to_do_or_shortened(tiny: list[str]) -> None:
    text = b"The sea is wide.\n" * 5000
    refused = ask(*tiny, "How wide?", input=text)
    assert refused.returncode == 1
    assert b"--fit" in refused.stderr
    assert b"--ctx" in refused.stderr
    done = ask(*tiny, "--fit", "How wide?", input=text)
    assert done.stdout.strip() == b"yes"
    assert b"too long for the model, so ondevice sent only the parts" in done.stderr


@posix
def test_a_name_that_is_no_text_is_shown_with_a_mark_where_it_is_none(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert printable("caf\udce9 \x1b[31m\n") == "caf\ufffd [31m\n"
    for arguments in (
        ["models", "show", "caf\udce9"],
        ["plan", "caf\udce9"],
        ["ask", "--schema", "caf\udce9", "x"],
    ):
        assert run(arguments) != 0
        assert "caf\ufffd" in capfd.readouterr().err, arguments


def test_a_question_that_nobody_answers_ends_its_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(UsageError, match="--yes"):
        confirm("Forget it?")
    assert capfd.readouterr().err.endswith("\n")
