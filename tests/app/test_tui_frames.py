"""What is drawn while a reply comes: all that has changed, and little else."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Mapping
from typing import Any

import long_chats
import pytest
from rich.cells import cell_len
from rich.segment import Segment
from terminal_user import OpenApp, User
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual._styles_cache import StylesCache
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from ondevice.chats import Chats
from ondevice.testing import FakeEngine, Gate
from tui.markdown.layout import AnyLine
from tui.screens.dialogs import ChoiceScreen
from tui.widgets.reply_text import ReplyBody

EARLIER = "\n\n".join("before" for _ in range(20)) + "\n\n"
WORDS = "The old sailor looked out over the grey sea. "
CODE = "```python\nfor n in range(10):\n    print(n)  # 你好\n```\n\n- **one**\n- two\n\n"


class Terminal:
    """Shows what the app draws, frame upon frame."""

    def __init__(self, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
        self._app = user.pilot.app
        self._rows: dict[int, dict[int, str]] = {}
        monkeypatch.setattr(self._app, "_display", self._draw)
        self._app.screen._compositor._dirty_regions.add(self._app.size.region)
        self._app.screen._compositor_refresh()

    @property
    def text(self) -> str:
        rows = [self._rows.get(y, {}) for y in range(self._app.size.height)]
        return "\n".join("".join(row[x] for x in sorted(row)).rstrip() for row in rows)

    def _draw(self, _: object, frame: object) -> None:
        if isinstance(frame, LayoutUpdate):
            self._rows.clear()
            for y, strips in enumerate(frame.strips):
                self._write(0, y, "".join(strip.text for strip in strips))
        elif isinstance(frame, ChopsUpdate):
            for y, first, last in frame.spans:
                parts = zip(frame.chop_ends[y], frame.chops[y].items(), strict=False)
                for end, (x, strip) in parts:
                    if strip is not None and x <= last and end > first:
                        self._write(x, y, strip.crop(0, min(end, last) - x).text)
        self._app.post_display_hook()

    def _write(self, x: int, y: int, text: str) -> None:
        row = self._rows.setdefault(y, {})
        for letter in text:
            row[x] = letter
            for covered in range(x + 1, x + cell_len(letter)):
                row.pop(covered, None)
            x += cell_len(letter)


@pytest.mark.parametrize("size", [(80, 24), (40, 12)])
async def test_the_terminal_shows_what_is_there_after_every_frame(
    open_app: OpenApp, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    gates = [Gate() for _ in range(9)]
    steps = [step for gate in gates for step in (WORDS * 3, "\n\n", CODE, gate)]
    async with open_app(FakeEngine(steps), size=size) as user:
        terminal = Terminal(user, monkeypatch)

        async def is_true() -> None:
            await user.until(lambda: terminal.text == user.screen, f"not:\n{terminal.text}")

        await user.says("A story")
        for number, gate in enumerate(gates):
            await is_true()
            if number % 3 == 1:
                await user.types("word ")
            elif number % 3 == 2:
                await user.pilot.press("pageup")
                await is_true()
                await user.pilot.press("ctrl+end")
            gate.open()
        await user.is_idle()
        await is_true()


async def test_a_reply_is_in_view_when_the_terminal_becomes_wider(open_app: OpenApp) -> None:
    async with open_app(FakeEngine([WORDS * 30, Gate()]), size=(30, 12)) as user:
        await user.says("A story")
        await user.sees("grey sea.")
        await user.pilot.resize_terminal(100, 30)
        body = user.chat.query_one(ReplyBody)
        await user.until(lambda: body.size.width > 90, "wider")
        assert body.size.height < 30


async def test_a_reply_is_drawn_for_the_width_that_it_has(chats: Chats, open_app: OpenApp) -> None:
    """Textual remembers how high it was with that width, and asks for others only."""
    line = "The sea is as grey today as it was when we came to this house."
    chat = long_chats.write(chats, ["A story", f"{line}\n\n" * 30] * 2)
    async with open_app(FakeEngine(), earlier=chats.load(chat)) as user:
        for size in [(80, 24), (40, 12), (80, 24), (20, 5), (80, 24), (300, 80), (80, 24)]:
            await user.pilot.resize_terminal(*size)
            if size[0] == 80:
                await user.until(lambda: user.screen.count(line) > 3, line)


async def test_a_line_more_has_a_line_drawn_and_not_the_screen(
    open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, drawn = 20, Counter[str]()
    gates = [Gate() for _ in range(lines)]
    draw, draw_row = ReplyBody._draw, StylesCache.render_line

    def counted(self: ReplyBody, line: AnyLine, y: int) -> Strip:
        drawn["lines"] += 1
        return draw(self, line, y)

    def counted_row(self: StylesCache, *what: Any) -> Strip:
        drawn["rows"] += 1
        return draw_row(self, *what)

    steps = [step for number, gate in enumerate(gates) for step in (f"{number} .\n\n", gate)]
    async with open_app(FakeEngine([EARLIER, *steps])) as user:
        await user.says("Count")
        for number, gate in enumerate(gates):
            await user.sees(f"   {number} ")  # in no row alone: there is a scrollbar
            if not number:  # what was there before fills the view
                monkeypatch.setattr(ReplyBody, "_draw", counted)
                monkeypatch.setattr(StylesCache, "render_line", counted_row)
            gate.open()
        await user.is_idle()
    assert drawn["lines"] < 7 * lines
    assert drawn["rows"] < 10 * lines


async def test_a_letter_has_the_prompt_drawn_and_no_message(
    open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Counter[str]()
    render = Widget.render_lines

    async with open_app(FakeEngine([WORDS * 20])) as user:
        await user.says("A story")
        await user.is_idle()
        await user.types("a")
        await user.pilot.pause(0.2)

        def counted(self: Widget, crop: object) -> object:
            rows[type(self).__name__] += 1
            return render(self, crop)  # type: ignore[arg-type]

        monkeypatch.setattr(Widget, "render_lines", counted)
        await user.types("b")
        await user.until(lambda: "ab" in user.prompt.text, "typed")
        assert rows["PromptInput"]
        assert not rows["ReplyBody"] + rows["UserMessage"] + rows["StatusBar"]


def seen(row: Mapping[int, Strip | None]) -> dict[int, list[Segment]]:
    return {x: [part for part in strip or () if part.text] for x, strip in row.items()}


async def test_rows_are_drawn_as_by_textual_itself(open_app: OpenApp) -> None:
    spec = importlib.util.find_spec("textual._compositor")
    assert spec and spec.loader
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)

    async with open_app(FakeEngine([CODE + WORDS]), size=(120, 30)) as user:
        await user.says("A story")
        await user.is_idle()
        for keys in ([], ["/"], ["backspace", "ctrl+g"], ["ctrl+p"], ["escape", "f1"]):
            await user.pilot.press(*keys)
            await user.pilot.pause()
            compositor = user.pilot.app.screen._compositor
            for crop in (compositor.size.region, Region(3, 2, 50, 9), Region(0, 20, 120, 1)):
                rows = set(crop.line_range) - {5}
                theirs = plain.Compositor._render_chops(compositor, crop, rows.__contains__)
                ours = compositor._render_chops(crop, rows.__contains__)
                for y in rows:
                    assert seen(ours[y]) == seen(theirs[y])


async def test_what_has_just_been_taken_away_is_drawn_for_a_moment(open_app: OpenApp) -> None:
    async with open_app(FakeEngine([WORDS])) as user:
        await user.says("A story")
        await user.is_idle()
        body = user.chat.query_one(ReplyBody)
        await user.chat.conversation.remove()
        assert len(body.rows(Region(0, 0, 20, 3))) == 3


async def test_what_lies_below_dialogs_is_there_when_they_are_drawn_between_two_frames(
    open_app: OpenApp,
) -> None:
    async with open_app(FakeEngine()) as user:
        app = user.pilot.app
        for question in ("First?", "Second, over the first?"):
            app.push_screen(ChoiceScreen(question, "Yes", "No"))
            await user.sees(question)
            for screen in app.screen_stack[1:]:
                screen.refresh()
            assert "Ask anything" in user.screen
            await user.pilot.pause(0.1)
            assert "Ask anything" in user.screen
