"""Whatever is typed, clicked and resized: no error, no lost word, and what is shown is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from random_user import Deed, deeds, play, shortest

_DEEDS = 300
_SHORTEN_S = 60.0


@pytest.mark.random
async def test_whatever_is_done_nothing_breaks_or_is_lost(
    rounds: Callable[[int], Iterator[Random]],
) -> None:
    for random in rounds(2):
        todo, seed = deeds(random, _DEEDS), str(random.random())

        async def why(todo: Sequence[Deed], seed: str = seed) -> Exception | None:
            with TemporaryDirectory() as folder:
                try:
                    await play(todo, Path(folder), seed)
                except Exception as error:
                    return error
            return None

        if (error := await why(todo)) is not None:

            async def fails_so(fewer: Sequence[Deed], kind: type = type(error)) -> bool:
                return type(await why(fewer)) is kind

            few = await shortest(todo, fails_so, _SHORTEN_S)
            lines = "\n".join(map(repr, few))
            raise AssertionError(f"{error!r} with replies {seed} after\n{lines}") from error
