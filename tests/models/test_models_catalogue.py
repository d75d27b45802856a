"""The catalogue of models: complete, and there wherever ondevice is installed."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from source_tree import ROOT

from ondevice import config, models
from ondevice.gguf.tensor_types import FILE_TYPES
from ondevice.models._own_folder import checked_name
from ondevice.models._records import HubSource


def test_every_model_says_what_a_user_chooses_by() -> None:
    recipes = models.catalogue()
    assert len(recipes) >= 15
    assert [recipe.size_bytes for recipe in recipes] == sorted(r.size_bytes for r in recipes)
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    assert config.FIRST in {recipe.name for recipe in recipes}
    for recipe in recipes:
        assert checked_name(recipe.name) == recipe.name
        assert recipe.title and recipe.license and recipe.sources, recipe.name
        assert 15 < len(recipe.good_at) < 90, recipe.name
        assert recipe.about().startswith(f"Good at {recipe.good_at}. ".rstrip()), recipe.name
        assert re.fullmatch(r"[\d.]+[MB](-A[\d.]+B)?", recipe.parameters), recipe.name
        assert recipe.quantization in FILE_TYPES.values(), recipe.name
        assert recipe.context >= 8192, recipe.name


def test_sizes_fit_parameters_and_quantization() -> None:
    """A digit too many or too few would mislead the check of the disk."""
    for recipe in models.catalogue():
        ((number, unit),) = re.findall(r"^([\d.]+)([MB])", recipe.parameters)
        parameters = float(number) * {"M": 1e6, "B": 1e9}[unit]
        least = 1.1 if recipe.quantization == "Q1_0" else 4
        assert least < 8 * recipe.size_bytes / parameters < 10, recipe.name


def test_every_hub_source_names_a_file_and_its_digest_if_any() -> None:
    for recipe in models.catalogue():
        for source in recipe.sources:
            if isinstance(source, HubSource):
                assert re.fullmatch(r"[\w.-]+/[\w.-]+", source.repo), recipe.name
                assert source.file.endswith(".gguf"), recipe.name
            assert source.sha256 is None or re.fullmatch("[0-9a-f]{64}", source.sha256)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ondevice as its wheel holds it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    subprocess.run([*pip, "--no-deps", "-w", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def test_an_installed_ondevice_has_its_catalogue(installed: Path) -> None:
    code = "from ondevice import models; print(models.__file__, len(models.catalogue()))"
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, cwd=installed, capture_output=True, text=True, check=True)
    file, count = said.stdout.split()
    assert Path(file).is_relative_to(installed)
    assert int(count) == len(models.catalogue())
