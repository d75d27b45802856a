"""Whatever happens to the engine, each reply is what the model says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import gguf
import numpy as np
import pytest
import shapes
from random_life import RandomLife


@pytest.mark.random
@pytest.mark.parametrize("shape", ["experts", "short window", "delta net"])
def test_replies_do_not_depend_on_what_happens(
    tmp_path: Path, shape: str, rounds: Callable[[int], Iterator[Random]]
) -> None:
    kind = gguf.GGMLQuantizationType.Q8_0
    path = shapes.write_random(tmp_path, shape, kind, np.random.default_rng(1))
    for number, random in enumerate(rounds(1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        life = RandomLife(path, folder, random, grammar="root ::= [a-z ]+")
        life.live(6)
        life.check()
