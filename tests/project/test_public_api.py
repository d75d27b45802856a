"""The public names: complete, importable, documented."""

from __future__ import annotations

import subprocess
import sys

import ondevice
from ondevice import errors


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
    heavy = {"llama_cpp", "numpy", "huggingface_hub", "jinja2", "pypdf", "pylatexenc"}
    assert not heavy & loaded_with("tui.app")
