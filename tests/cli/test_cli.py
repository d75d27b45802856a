"""The console script as a shell sees it: output, exit codes, settings, signals."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from ondevice.cli import COMMANDS, cli, run
from ondevice.cli._options import settings_flags
from ondevice.config import Settings
from ondevice.errors import UsageError

ASK = ["--temperature", "0", "--ctx", "512", "--max-tokens", "30"]


def ondevice(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options.setdefault("stdin", subprocess.DEVNULL if "input" not in options else None)
    if "input" in options:
        del options["stdin"]
    return subprocess.run(
        [sys.executable, "-m", "ondevice", *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_the_answer_goes_to_stdout_and_nothing_else(default_model: Path) -> None:
    done = ondevice("ask", "-m", str(default_model), *ASK, "Name the capital of France.")
    assert done.returncode == 0
    assert "Paris" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


@pytest.fixture(scope="module")
def as_nobody() -> tuple[str, ...]:
    """What runs a program under a number that has no name, and may do no more than others."""
    command = ("unshare", "--user", "--map-user=54321", "--map-group=54321")
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], check=False).returncode
    ):
        pytest.skip("needs unshare and user namespaces")
    return command


@pytest.mark.parametrize("home", ["unknown", "of another user"])
@pytest.mark.parametrize("command", ["chats list", "models list", "doctor", "ask Hi"])
def test_a_user_without_a_home_is_told_so(
    as_nobody: tuple[str, ...], home: str, command: str, tmp_path: Path
) -> None:
    """As in a container that runs under a number without a name."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    if home == "of another user":
        environment["HOME"] = str(tmp_path)
        tmp_path.chmod(0)
    done = subprocess.run(
        [*as_nobody, sys.executable, "-m", "ondevice", *command.split()],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (1, 2)
    said = done.stdout + done.stderr
    if home == "unknown":
        assert "The home folder of this user is not known. Set HOME" in said
    else:
        assert "Permission denied" in said
        assert "set ONDEVICE_HOME to" in said


def test_a_question_may_come_through_a_pipe(default_model: Path) -> None:
    done = ondevice("ask", "-m", str(default_model), *ASK, input="Name the capital of France.")
    assert "Paris" in done.stdout
    both = ondevice("ask", "-m", str(default_model), *ASK, "Where is it?", input="Paris\n")
    alone = ondevice("ask", "-m", str(default_model), *ASK, "Where is it?\n\nParis")
    assert both.stdout == alone.stdout


def test_json_carries_the_answer_and_its_statistics(default_model: Path) -> None:
    done = ondevice("ask", "-m", str(default_model), *ASK, "--json", "--seed", "3", "Say hello.")
    answer = json.loads(done.stdout)
    assert answer["answer"]
    assert answer["finish_reason"] in {"stop", "length"}
    assert answer["statistics"]["generated_tokens"] > 0
    assert answer["statistics"]["seed"] == 3
    assert answer["model"]["architecture"] == "llama"


def test_a_schema_may_be_text_or_a_file(short: Path, tmp_path: Path) -> None:
    schema = '{"type": "object", "properties": {"n": {"enum": [7]}}, "required": ["n"]}'
    file = tmp_path / "schema.json"
    file.write_text(schema)
    for given in (schema, str(file)):
        done = ondevice("ask", "-m", str(short), *ASK, "--schema", given, "A number?")
        assert json.loads(done.stdout) == {"n": 7}


@pytest.mark.parametrize("of", [[], ["chats"], ["chats", "export"]])
def test_help_is_a_command_as_well(of: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["help", *of]) == run([*of, "--help"]) == 0
    said, again = capfd.readouterr().out.split("Usage: ")[1:]
    assert said == again
    assert said.startswith(" ".join(["ondevice", *of]))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ask"], 2, "Ask something"),
        (["ask", "--temperature", "hot", "x"], 2, "'hot' is not a valid number."),
        (["ask", "--threads", "two", "x"], 2, "'two' is not a valid whole number."),
        (["serve", "--port", "http"], 2, "'http' is not a valid whole number."),
        (["chats", "export", "new.json", "first"], 2, "'first' is not a valid whole number."),
        (["ask", "-m", os.devnull, "x"], 1, f"{os.devnull} is not a file"),
        (["ask", "--ram", "much", "x"], 2, "not a size"),
        (["ask", "--grammar", "none.gbnf", "x"], 1, "none.gbnf"),
        (["nonsense"], 2, "No such command"),
        (["aks", "x"], 2, "Did you mean ask"),
        (["ask", "-m", "smollm2-135", "x"], 1, "Did you mean smollm2-135m"),
        (["ask", "-m", "smollm2-135m", "x"], 1, "ondevice models pull smollm2-135m"),
        (["ask", "-m", "nowhere.gguf", "x"], 1, "nowhere.gguf"),
        (["pack", "smollm2-135"], 1, "Did you mean smollm2-135m"),
        (["stack", "show", "smollm2-135m"], 1, "ondevice models pull smollm2-135m"),
        (["chats", "export", __file__], 1, "already exists. Replace it with --force"),
        (["memory", "export", __file__], 1, "already exists. Replace it with --force"),
        (["help", "nonsense"], 2, "No such command"),
    ],
)
def test_what_fails_says_why_and_what_to_do(
    arguments: list[str], code: int, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == code
    captured = capfd.readouterr()
    assert words in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
@pytest.mark.parametrize(
    "command",
    [
        *["chat", "memory export -", "memory import -", "memory passphrase", "models list"],
    ],
)
def test_a_stream_that_is_closed_is_no_traceback(command: str) -> None:
    python = shlex.join([sys.executable, "-m", "ondevice"])
    for closed in ("<&-", ">&- </dev/null", ">&- <&- 2>&-"):
        done = subprocess.run(
            f"{python} {command} {closed}", shell=True, capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, 1, 2), closed
        assert "Traceback" not in done.stderr, closed


_PRESSED_AT = """
import atexit, os, signal, sys
from ondevice.__main__ import main

moment = sys.argv.pop(1)

class Pressed:
    def find_spec(self, name, path, target=None):
        if name == moment:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Pressed())
if moment == "end":
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    "moment",
    # What is being imported: by the script, for all commands, for this one. Or when it is done.
    ["ondevice.cli", "click", "ondevice.text", "ondevice.cli.fit", "ondevice.planning", "end"],
)
def test_ctrl_c_is_no_traceback_whenever_it_comes(moment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PRESSED_AT, moment, "fit", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (128 + signal.SIGINT, -signal.SIGINT)
    assert done.stderr in ("", "\nInterrupted.\n", "Interrupted.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_with_130_and_leaves_no_engine(default_model: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ondevice", "ask", "-m", str(default_model), "Count to 9999."],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Interrupted" in stderr
    assert "Traceback" not in stderr


def test_flag_before_environment_before_file_before_default(
    home: Path, monkeypatch: pytest.MonkeyPatch, short: Path
) -> None:
    def seed(*flags: str) -> int:
        done = ondevice("ask", "-m", str(short), *ASK, "--json", *flags, "Hi")
        return int(json.loads(done.stdout)["statistics"]["seed"])

    file = home / "config" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text("[sampling]\nseed = 1\n")
    assert seed() == 1
    monkeypatch.setenv("ONDEVICE_SAMPLING_SEED", "2")
    assert seed() == 2
    assert seed("--seed", "3") == 3


@pytest.mark.parametrize(
    ("flags", "thinking"),
    [
        ((), 300),
        (("--no-think",), False),
        (("--think",), True),
        (("--think-tokens", "20"), 20),
        (("--think", "--think-tokens", "20"), 20),
    ],
)
def test_flags_say_how_long_a_model_thinks(
    monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], thinking: bool | int
) -> None:
    monkeypatch.setenv("ONDEVICE_THINKING", "300")
    given: list[Settings] = []

    @click.command()
    @settings_flags
    def command(settings: Settings) -> None:
        given.append(settings)

    command.main([*flags], standalone_mode=False)
    assert [one.thinking for one in given] == [thinking]
    assert type(given[0].thinking) is type(thinking)
    with pytest.raises(UsageError, match="not both"):
        command.main(["--no-think", "--think-tokens", "5"], standalone_mode=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modle = 'x'", "modle"),
        ("ctx = 'long'", "ctx"),
        ("[sampling]\ntemperature = 'hot'", "temperature"),
        ("ctx = ", "config.toml"),
        ("ram = 'much'", "not a size"),
    ],
)
def test_a_wrong_setting_is_named(
    home: Path, text: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = home / "config" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert run(["ask", "x"]) == 2
    assert words in capfd.readouterr().err


def test_a_wrong_environment_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ONDEVICE_CTX", "long")
    assert run(["ask", "x"]) == 2
    assert "ONDEVICE_CTX" in capfd.readouterr().err


def test_every_command_has_help_and_stands_in_the_readme(
    capfd: pytest.CaptureFixture[str],
) -> None:
    readme = Path("README.md").read_text()
    for name in COMMANDS:
        assert run([name, "--help"]) == 0
        assert "Usage: ondevice" in capfd.readouterr().out
        assert f"ondevice {name}" in readme, name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_ONDEVICE_COMPLETE" in capfd.readouterr().out


def parameters(command: click.Command, name: str = "ondevice") -> Iterator[tuple[str, Any]]:
    """Every parameter of every command, with the command's name."""
    yield from ((name, parameter) for parameter in command.params)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from parameters(found, f"{name} {each}")


def test_whatever_takes_a_file_completes_files(home: Path) -> None:
    taking = [
        (name, parameter)
        for name, parameter in parameters(cli)
        if re.search("FILE|PATH|DIR", parameter.make_metavar(click.Context(cli)))
    ]
    assert len(taking) > 15
    for name, parameter in taking:
        given = parameter.shell_complete(click.Context(cli), "no-such-model")
        assert [item.type for item in given] == ["file"], (name, parameter.name)


def test_a_variable_that_is_not_set_names_neither_this_folder_nor_a_model(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = [
        (name, parameter)
        for name, parameter in parameters(cli)
        if isinstance(parameter.type, click.Path)
    ]
    assert len(paths) > 8
    for name, parameter in paths:
        with pytest.raises(click.BadParameter, match="is empty"):
            parameter.type.convert("", parameter, None)
            pytest.fail(f"{name} {parameter.name}")
    for command in ("pack", "stack show", "models show", "models rm", "models pull", "plan"):
        assert run([*command.split(), ""]) == 1, command
        assert "The name of the model is empty" in capfd.readouterr().err
    assert run(["ask", "--schema", "", "Hi"]) == 2
    assert "The schema is empty" in capfd.readouterr().err


def test_commands_and_models_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "_ONDEVICE_COMPLETE": "bash_complete"}
    words = {"COMP_WORDS": "ondevice do", "COMP_CWORD": "1"}
    assert "doctor" in ondevice(env={**environment, **words}).stdout


@pytest.mark.parametrize(
    "command",
    [
        "models show nothing",
        "models rm nothing",
        "models where nothing",
        "models pull nothing",
        "models import nothing",
        "plan nothing",
        "ask -m nothing hi",
        "serve -m nothing",
        "pack nothing",
        "stack show nothing",
        "chats undo",
        "chats import nothing",
        "chats export chat.md",
        "chats export chat.md 7",
        "memory show 3:17",
        "memory history 3:17",
        "memory forget 3:17 --yes",
        "memory add nothing",
        "memory import nothing",
        "memory bench nothing",
        "ask --schema nothing hi",
        "ask --grammar nothing hi",
    ],
)
def test_what_does_not_exist_is_a_failure_and_no_wrong_usage(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert run(command.split()) == 1
    assert capfd.readouterr().err.splitlines()[-1].startswith("ondevice: ")
    wrong = [word for word in command.split() if word.isalpha()][:2]
    assert run([*wrong, "--no-such-option"]) == 2


@pytest.mark.parametrize("place", ["missing/file", "file", "."])
@pytest.mark.parametrize("command", ["chats export {} --force", "memory export {} --force"])
def test_a_file_that_cannot_be_written_is_a_failure_and_no_wrong_usage(
    command: str,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    (tmp_path / "file").mkdir()
    assert run(command.format(tmp_path / place).split()) == 1
    assert capfd.readouterr().err.startswith("ondevice: ")
