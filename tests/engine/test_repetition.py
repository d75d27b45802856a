"""A reply in a loop is noticed; what repeats in tables, code and songs is not."""

from __future__ import annotations

from random import Random

import pytest

from ondevice.engine._repetition import Repetition


def noticed_at(tokens: list[int]) -> int | None:
    repetition = Repetition()
    return next((i for i, token in enumerate(tokens) if repetition.is_endless(token)), None)


@pytest.mark.parametrize("length", [1, 2, 7, 60, 300, 512])
def test_a_loop_is_noticed_after_some_rounds(length: int) -> None:
    random = Random(length)
    before = [random.randrange(50) for _ in range(500)]
    block = [random.randrange(1000) for _ in range(length)]
    at = noticed_at(before + block * (6000 // length))
    assert at is not None
    assert at <= len(before) + max(600, 8 * length)


@pytest.mark.parametrize(
    "text",
    [
        "Around the world, " * 144,
        ("[" + "0, " * 15 + "0],\n") * 16,
        "| a | b |\n" + "|---|---|\n" + "".join(f"| {i} | 0 |\n" for i in range(400)),
        "-" * 500,
        "".join(f"{i}, " for i in range(2000)),
        "    }\n" * 90,
    ],
)
def test_what_repeats_for_a_reason_is_not_cut(text: str) -> None:
    words = text.replace(",", " ,").replace("\n", " \n ").split(" ")
    tokens = [hash(word) % 50_000 for word in words if word]
    assert noticed_at(list(text.encode()) if "-" * 9 in text else tokens) is None
