"""How good a model is, as far as its file or its recipe tells; see :mod:`ondevice.gguf.quality`."""

from __future__ import annotations

import re

from ondevice.errors import ModelFileError
from ondevice.gguf import runnable
from ondevice.gguf.quality import effective_params, quality_of
from ondevice.models._records import InstalledModel, Recipe


def good_as(model: InstalledModel | Recipe) -> tuple[float, bool]:
    """What it is about as good as, in parameters (0: not known), and whether it is a base model."""
    if isinstance(model, Recipe):
        total, active = params_of(model)
        left = quality_of(model.size_bytes, total, model.quantization)
        return effective_params(total, active, left), False
    try:
        with runnable.blamed(model.path):
            file = runnable.read(model.path)
            good = effective_params(file.n_params, file.n_active_params, file.quality)
            return good, file.is_base
    except ModelFileError:
        return 0.0, False


def params_of(recipe: Recipe) -> tuple[float, float]:
    """Of "30B-A3B": 30e9 parameters, of which each token uses 3e9."""
    match = re.fullmatch(r"([\d.]+[BM])(?:-A([\d.]+[BM]))?", recipe.parameters)
    total, active = match.groups()  # type: ignore[union-attr]
    return _number(total), _number(active or total)


def _number(text: str) -> float:
    return float(text[:-1]) * {"M": 1e6, "B": 1e9}[text[-1]]
