"""One scale for how good models are: the size of an unquantized model that is about as good.

Parameters are all that a file tells of what its model can do; what quantizing takes away goes off
them. Models of different makers and years differ by more than that: it is a scale for a list of
models, and no test of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

#: Bits a weight → what is left of the model's quality, as measured by others on models of 1 to 8
#: billion parameters; between them, straight lines.
_BITS_LEFT = ((1.5, 0.2), (2.6, 0.6), (3.4, 0.82), (4.0, 0.92), (4.8, 0.97), (5.7, 0.99), (8, 1))

#: Quantizations that a model is trained with → the same of these, at the least: by others'
#: reports, ternary weights cost about a quarter, and binary ones more than half.
_TRAINED_LEFT = {"MXFP4": 1.0, "Q2_0": 0.75, "TQ2_0": 0.75, "TQ1_0": 0.75, "Q1_0": 0.3}


def quality_of(weights_bytes: int, n_params: float, quantization: str = "") -> float:
    """Of 1: what is left of a model's quality at this size, going by the bits a weight.

    ``quantization`` such as "Q4_K_M": with some of them, models are trained.
    """
    by_bits = _between(weights_bytes * 8 / max(1, n_params), _BITS_LEFT)
    return max(by_bits, _TRAINED_LEFT.get(quantization.removesuffix("_MOE"), 0.0))


def effective_params(n_params: float, n_active_params: float, left: float) -> float:
    """Parameters of a dense, unquantized model that is about as good; ``left`` is of 1.

    A mixture of experts is about as good as the geometric mean of what it has and what it uses.
    """
    return math.sqrt(n_params * n_active_params) * left


def params_words(n_params: float) -> str:
    """A number of parameters as models are named after it: 30B, 9.2B, 135M."""
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if n_params >= unit * 0.9995:
            digits = 1 if n_params < 9.95 * unit and unit > 1e6 else 0
            return f"{n_params / unit:.{digits}f}{letter}"
    return f"{n_params:.0f}"


def _between(x: float, points: Sequence[tuple[float, float]]) -> float:
    """The value at ``x`` on the line through ``points``, level beyond its ends."""
    if x <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]
