"""The RAM screen: what of the model is in RAM, and a dial that changes it while a reply runs."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
import shapes
from headers import dense
from msgspec.structs import replace
from sizings import sizing_of
from terminal_user import at_the_terminal

from ondevice import gguf
from ondevice.chats import Chats, Message
from ondevice.config import App
from ondevice.engine import Engine
from ondevice.holding.cells import Cell
from ondevice.holding.ways import way_of
from ondevice.holding.window.placement import least_bytes, most_bytes
from ondevice.testing import FakeEngine, Gate

SIZES = [(40, 12), (80, 24), (300, 80)]


def test_cells_tell_for_each_block_what_of_it_is_in_ram() -> None:
    file = dense()
    whole = way_of(file).cells(sizing_of(file, most_bytes(file)))
    assert [cell.block for cell in whole][: file.n_blocks] == list(range(file.n_blocks))
    assert {cell.share for cell in whole} == {1.0}
    half = sizing_of(file, (least_bytes(file) + most_bytes(file)) // 2)
    found = way_of(file).cells(half)
    assert sum(cell.n_bytes for cell in found) == sum(cell.n_bytes for cell in whole)
    assert sum(cell.n_bytes - cell.resident_bytes for cell in found) == half.absent_bytes
    assert {cell.absent for cell in found} == {"streamed"}


def test_cells_of_experts_tell_how_many_have_a_place(tmp_path: Path) -> None:
    name = next(name for name in shapes.SHAPES if "expert" in name)
    file = gguf.read(shapes.write(tmp_path, name))
    sizing = sizing_of(file, (least_bytes(file) + most_bytes(file)) // 2)
    experts = [cell for cell in way_of(file).cells(sizing) if cell.absent == "experts"]
    assert experts
    assert all(0 < cell.share < 1 for cell in experts)
    assert Cell(None, 0, 0, "streamed").share == 1


@pytest.mark.parametrize("size", SIZES)
async def test_the_dial_changes_the_budget_while_a_reply_runs(
    chats: Chats, tmp_path: Path, size: tuple[int, int]
) -> None:
    path = shapes.write(tmp_path, next(iter(shapes.SHAPES)))
    file = gguf.read(path)
    gate = Gate()
    engine = FakeEngine(["Once ", gate, "upon a time."])
    engine.sizing = sizing_of(file, (least_bytes(file) + most_bytes(file)) // 2)
    async with at_the_terminal(engine, chats, path, size=size) as user:
        await user.until(lambda: engine.loaded is not None, "loaded")
        await user.says("A story")
        await user.sees("Once")
        await user.pilot.press("ctrl+g")
        await user.sees("automatic")
        await user.sees("·" * (size[0] // 8))  # the bar: what is beyond the room for weights
        await user.sees("disk")
        await user.sees("●")
        await user.pilot.press("left")
        (wish,) = engine.resizes
        assert wish is not None
        assert least_bytes(file) <= wish < engine.sizing.resident_bytes
        await user.sees("at most")
        await user.until(lambda: "at most" in user.screen.split("●")[0].split("\n")[-2], "one line")
        engine.sizing = sizing_of(file, most_bytes(file))
        await user.sees("██ " if size[0] < 50 else "2 of 2 blocks")
        await user.pilot.press("a")
        assert engine.resizes[-1] is None
        await user.pilot.press("left", "A")  # as the screen spells it
        assert engine.resizes[-1] is None
        await user.pilot.press("escape")
        gate.open()
        await user.sees("upon a time.")


async def test_it_stays_beside_the_chat_where_there_is_room(chats: Chats, tmp_path: Path) -> None:
    path = shapes.write(tmp_path, next(iter(shapes.SHAPES)))
    file = gguf.read(path)
    engine = FakeEngine(["Once upon a time."])
    half = (least_bytes(file) + most_bytes(file)) // 2
    engine.sizing = replace(
        sizing_of(file, half), room_bytes=half, limit_source="memory limit of /x/y (cgroup v2)"
    )
    async with at_the_terminal(engine, chats, path, size=(140, 40)) as user:
        await user.until(lambda: engine.loaded is not None, "loaded")
        await user.pilot.press("ctrl+g")
        await user.sees("being read now")
        await user.sees("┃")  # where more changes nothing, and why
        await user.sees("A higher limit")
        await user.sees("container")
        await user.pilot.press("escape")
        await user.says("A story")
        await user.sees("Once upon a time.")
        assert "being read now" in user.screen
        await user.pilot.press("ctrl+g", "left")
        await user.sees("You set a limit of")
        await user.pilot.press("ctrl+g")
        await user.until(lambda: "being read now" not in user.screen, "closed")
        assert user.prompt.has_focus
        await user.pilot.press("ctrl+g")
        await user.sees("being read now")
        await user.pilot.resize_terminal(80, 24)
        await user.until(lambda: "being read now" not in user.screen, "no room")
        assert user.prompt.has_focus


async def test_a_tiny_model_is_seen_in_the_bar_and_a_full_share_as_full(
    chats: Chats, tmp_path: Path
) -> None:
    path = shapes.write(tmp_path, next(iter(shapes.SHAPES)))
    file = gguf.read(path)
    engine = FakeEngine()
    sizing = sizing_of(file, most_bytes(file))
    engine.sizing = replace(sizing, limit_bytes=10_000 * sizing.resident_bytes)
    async with at_the_terminal(engine, chats, path) as user:
        await user.until(lambda: engine.loaded is not None, "loaded")
        await user.pilot.press("ctrl+g")
        await user.sees("█·")
        await user.until(lambda: "100 %" in user.screen, "all of it")
        (hits,) = [line for line in user.screen.splitlines() if "100 %" in line]
        assert hits.rstrip("│ ").endswith("█")


async def test_in_linear_mode_words_tell_what_is_drawn_otherwise(
    chats: Chats, tmp_path: Path
) -> None:
    path = shapes.write(tmp_path, next(iter(shapes.SHAPES)))
    file = gguf.read(path)
    engine = FakeEngine()
    engine.sizing = sizing_of(file, (least_bytes(file) + most_bytes(file)) // 2)
    async with at_the_terminal(engine, chats, path, app=App(linear=True)) as user:
        await user.until(lambda: engine.loaded is not None, "loaded")
        await user.pilot.press("ctrl+g")
        await user.sees("0 of 2 blocks are fully in RAM")
        await user.sees("found in RAM")
        assert not {unicodedata.name(c) for c in user.screen if unicodedata.category(c) == "So"}


async def test_a_model_that_drafts_is_told_of(chats: Chats, tmp_path: Path) -> None:
    path = shapes.write(tmp_path, next(iter(shapes.SHAPES)))
    file = gguf.read(path)
    engine = FakeEngine()
    sizing = sizing_of(file, (least_bytes(file) + most_bytes(file)) // 2)
    engine.sizing = replace(sizing, room_bytes=sizing.resident_bytes, drafter_bytes=236_000_000)
    async with at_the_terminal(engine, chats, path, size=(120, 40)) as user:
        await user.until(lambda: engine.loaded is not None, "loaded")
        await user.pilot.press("ctrl+g")
        await user.sees("Other programs and the drafter")
        await user.sees("drafts has 236 MB in RAM.")


@pytest.mark.parametrize("gain", ["faster", "more exact"])
async def test_it_says_what_more_ram_gives(chats: Chats, tmp_path: Path, gain: str) -> None:
    path = shapes.write(tmp_path, next(iter(shapes.SHAPES)))
    file = gguf.read(path)
    sizing = sizing_of(file, (least_bytes(file) + most_bytes(file)) // 2)
    engine = FakeEngine()
    engine.sizing = replace(sizing, streamed_bytes=sizing.absent_bytes * (gain == "faster"))
    async with at_the_terminal(engine, chats, path, size=(120, 40)) as user:
        await user.until(lambda: engine.loaded is not None, "loaded")
        await user.pilot.press("ctrl+g")
        await user.sees(f"More RAM makes it {gain}")


async def test_a_model_on_a_server_has_no_map(chats: Chats) -> None:
    async with at_the_terminal(FakeEngine(), chats, "http://localhost:1/v1#m") as user:
        await user.until(lambda: "ctx" in user.status, "loaded")
        await user.sees("What you write goes to localhost:1.")
        await user.pilot.press("ctrl+g")
        await user.sees("runs on a server")
        await user.pilot.press("left")
        await user.sees("RAM use is fixed")


async def test_a_real_model_gives_way_and_goes_on(chats: Chats, default_model: Path) -> None:
    engine = Engine()
    settings: dict[str, Any] = {"ctx": 512, "ram": "260M"}
    async with at_the_terminal(engine, chats, default_model, **settings) as user:
        await user.until(lambda: engine.sizing is not None, "loaded")
        await user.pilot.press("ctrl+g")
        await user.sees("30 of 30 blocks")
        await user.pilot.press(*["left"] * 25)
        await user.until(lambda: absent(engine) > 0, "a smaller model")
        await user.sees("0 of 30 blocks")
        await user.pilot.press("escape")
        await user.says("Hi")
        await user.until(lambda: len(saved(chats)) == 2, "a reply")
        await user.pilot.press("escape")
        await user.is_idle()
        assert saved(chats)[1].content


def absent(engine: Engine) -> int:
    return engine.sizing.absent_bytes if engine.sizing else 0


def saved(chats: Chats) -> tuple[Message, ...]:
    headings = chats.headings()
    return chats.load(headings[0].id).messages if headings else ()
