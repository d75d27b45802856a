"""The plans for 42 pairs of a model and a limit are those of before.

``ONDEVICE_TEST_ACCEPT=1`` takes today's: for a change that is meant to change plans.
"""

from __future__ import annotations

import json
import os
from dataclasses import fields
from itertools import product
from pathlib import Path

import pytest
import shapes
from planned import plan

from ondevice import gguf
from ondevice.errors import MemoryShortError
from ondevice.gguf import GGUFFile
from ondevice.holding.speeds import USUAL
from ondevice.holding.stack import _layout
from ondevice.holding.stack._layout import Quality
from ondevice.holding.stack._writing import Contents, Writer
from ondevice.messages import Preference
from ondevice.ram.available import AvailableRam

KEPT = Path(__file__).with_name("plans.json")
MODELS = ("dense", "experts", "sliding window", "convolution", "shared keys", "stack")
# In bytes.
LIMITS = (90_000_000, 95_000_000, 100_000_000, 110_000_000, 130_000_000, 160_000_000, 1_000_000_000)
PREFERENCES: tuple[Preference, ...] = ("speed", "balanced", "exact")


def stack(folder: Path) -> GGUFFile:
    """A stack of the dense model, without its weights."""
    source = gguf.read(shapes.write(folder, "dense"))
    matrices = {
        name: _layout.shape_of(tensor.shape[1], tensor.shape[0])
        for name, tensor in source.tensors.items()
        if len(tensor.shape) == 2
    }
    blocks = [block for name, shape in matrices.items() for block in _layout.blocks_of(name, shape)]
    contents = Contents(source, matrices, sorted(blocks, key=lambda block: block.plane))
    path = folder / "stack.gguf"
    writer = Writer(path, contents)
    total = len(blocks)
    writer.finish(
        {}, {block.name: Quality(2 * (1 - n / total), 9) for n, block in enumerate(contents.blocks)}
    )
    writer.close()
    return gguf.read(path)


def model(folder: Path, name: str) -> GGUFFile:
    return stack(folder) if name == "stack" else gguf.read(shapes.write(folder, name))


@pytest.mark.parametrize(("name", "limit"), list(product(MODELS, LIMITS)))
def test_plans_are_those_of_before(tmp_path: Path, name: str, limit: int) -> None:
    file = model(tmp_path, name)
    ram = AvailableRam(limit, limit, "all RAM of this machine")
    found: dict[str, object] = {}
    for preference in PREFERENCES:
        try:
            chosen = plan(file, ram, USUAL, preference=preference)
        except MemoryShortError:
            found[preference] = None
            continue
        found[preference] = {
            field.name: value if isinstance(value, str) else round(value, 6)
            for field in fields(chosen)
            if isinstance(value := getattr(chosen, field.name), str | int | float)
            and not isinstance(value, bool)
        } | {"kind": chosen.kind, "n_ctx": chosen.n_ctx}
    kept = json.loads(KEPT.read_text())
    key = f"{name}, {limit // 1_000_000} MB"
    if os.environ.get("ONDEVICE_TEST_ACCEPT"):
        KEPT.write_text(json.dumps(kept | {key: found}, indent=1, sort_keys=True) + "\n")
    else:
        assert found == kept[key]
