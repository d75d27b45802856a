"""The public names: complete, importable, documented."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec

import ondevice
from ondevice import errors, messages, testing


def test_every_public_name_exists_and_says_what_it_is() -> None:
    for name in ondevice.__all__:
        thing = getattr(ondevice, name)
        assert thing.__doc__, name
    assert list(ondevice.__all__) == sorted(ondevice.__all__)


def test_every_error_is_in_the_tree_and_in_its_picture() -> None:
    classes = {
        name: thing
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, Exception)
    }
    assert classes == errors.BY_NAME
    for name in classes:
        assert name in (errors.__doc__ or ""), name


def test_every_error_is_public() -> None:
    assert set(errors.BY_NAME) <= set(ondevice.__all__)


def test_every_record_that_an_engine_takes_or_gives_is_public() -> None:
    of_the_pipe = {"AnswerNow", "Cancel", "Failed", "Loading", "Record", "Shutdown"}
    records = {
        name
        for name, thing in vars(messages).items()
        if isinstance(thing, type) and issubclass(thing, msgspec.Struct)
    }
    assert records - of_the_pipe == records & set(ondevice.__all__)


def test_types_come_with_the_package() -> None:
    package = Path(ondevice.__file__).parent
    assert (package / "py.typed").is_file()
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))
    assert "ondevice" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert project["project"]["version"] == ondevice.__version__


def test_everything_in_the_fake_engine_says_what_it_is() -> None:
    for thing in (testing.FakeEngine, testing.Gate, testing.Pause):
        assert thing.__doc__
        for name, method in inspect.getmembers(thing):
            if not name.startswith("_"):
                assert method.__doc__, name


def loaded_with(module: str) -> set[str]:
    """The modules that a new Python has once it has imported this one."""
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(loaded.stdout.split())


def test_importing_ondevice_loads_no_model_code() -> None:
    heavy = {"llama_cpp", "numpy", "textual", "huggingface_hub", "jinja2"}
    assert not heavy & loaded_with("ondevice")


def test_the_app_starts_without_what_only_replies_and_searches_need() -> None:
    heavy = {"llama_cpp", "numpy", "huggingface_hub", "jinja2", "pypdf", "pylatexenc", "psutil"}
    heavy |= {"markdown_it", "pygments", "ondevice.memory._memory", "ondevice.models"}
    assert not heavy & loaded_with("tui.app, ondevice.cli.chat")
