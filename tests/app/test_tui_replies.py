"""Replies in the terminal app: their code, what wrote them, and how they are copied."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import long_chats
import msgspec
import pytest
from terminal_user import OpenApp, at_the_terminal
from textual import events
from textual.geometry import Offset
from textual.selection import Selection

from ondevice import config
from ondevice.chats import Chats
from ondevice.messages import Chunk, Finished, Notice, Statistics
from ondevice.testing import FakeEngine, Gate
from tui.markdown.code import Code
from tui.markdown.document import Document, ParsedEnd
from tui.widgets.reply import Reply
from tui.widgets.reply_text import ReplyBody
from tui.widgets.thinking import Thinking
from tui.widgets.transcript import Transcript

LONG = "value = " + " + ".join(f"number_{n}" for n in range(20))
CODE = f"Look:\n\n```python\nif True:\n\t{LONG}\n```\n\nand\n\n```\nplain\n```\n"


async def test_code_is_wrapped_cut_and_shifted_by_keys(open_app: OpenApp) -> None:
    async with open_app(FakeEngine([CODE])) as user:
        await user.says("Hi")
        await user.sees("plain")
        await user.is_idle()
        assert "▎ python" in user.screen
        assert LONG[-9:] in user.screen
        await user.pilot.press("ctrl+up", "w")
        await user.until(lambda: LONG[-9:] not in user.screen, "cut")
        assert "›" in user.screen
        await user.pilot.press(*["shift+right"] * 25)
        await user.sees(LONG[-9:])
        await user.pilot.press("w")
        await user.sees("if True:")


async def test_blocks_of_code_are_copied_one_by_one_and_as_they_came(open_app: OpenApp) -> None:
    async with open_app(FakeEngine([CODE])) as user:
        await user.says("Hi")
        await user.is_idle()
        app = user.pilot.app
        await user.pilot.press("f3")
        assert app.clipboard == "plain\n"
        await user.pilot.press("ctrl+up", "b")
        assert app.clipboard == f"if True:\n\t{LONG}\n"
        await user.sees("Code block 1 of 2 (python, 2 lines)")
        app.clear_notifications()  # they are above it
        text = app.screen.query_one(ReplyBody)
        y = next(y for y in range(text.size.height) if "▎ plain" in text.render_line(y).text)
        await user.pilot.click(text, offset=(text.size.width - 2, y - 1))
        await user.until(lambda: app.clipboard == "plain\n", "a click on copy")


async def test_what_is_selected_is_text_without_marks_and_breaks(open_app: OpenApp) -> None:
    words = "many words " * 12
    async with open_app(FakeEngine([f"{words}\n\n{CODE}"])) as user:
        await user.says("Hi")
        await user.is_idle()
        text = user.pilot.app.screen.query_one(ReplyBody)
        selected = text.get_selection(Selection(Offset(0, 0), Offset(5, text.size.height)))
        assert selected
        assert words.strip() in selected[0]
        assert f"if True:\n    {LONG}\n" in selected[0]
        assert "▎" not in selected[0]
        assert "copy" not in selected[0]


@pytest.mark.parametrize("works", [True, False])
async def test_copying_under_tmux_goes_to_tmux_or_says_that_it_did_not(
    works: bool, open_app: OpenApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "taken"
    tmux = tmp_path / "tmux"
    tmux.write_text(f'#!/bin/sh\necho "$@" > {taken}.how\ncat > {taken}\nexit {int(not works)}\n')
    tmux.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMUX", "/tmp/tmux-0/default,1,0")
    monkeypatch.setenv("SSH_CONNECTION", "1 2 3 4")
    async with open_app(FakeEngine(["Täxt"])) as user:
        await user.says("Hi")
        await user.is_idle()
        await user.pilot.press("ctrl+up", "c")
        said = "The message was copied." if works else "tmux refused"
        await user.sees(said)
    assert taken.read_text(encoding="utf-8") == "Täxt"


async def test_what_writes_a_reply_is_told_at_its_end(open_app: OpenApp) -> None:
    gate = Gate()
    async with open_app(FakeEngine(["One, ", gate, "two."])) as user:
        await user.says("Count")
        await user.sees("One,")
        await user.chat.conversation.follow().wait()  # the store knows by now
        await user.pilot.pause()
        assert user.screen.count("Tiny-1B") == 1  # in the status line
        gate.open()
        await user.until(lambda: user.screen.count("Tiny-1B") == 2, "told")


async def test_below_a_reply_stands_what_wrote_it_and_how_fast(
    chats: Chats, open_app: OpenApp
) -> None:
    async with open_app(FakeEngine(["One."], ["Two."])) as user:
        await user.says("Hi")
        await user.is_idle()
        user.chat.engine.title = "Another 2B"
        await user.says("Again")
        await user.sees("Another 2B · 50 tokens/s · ")
        lines = [line.strip() for line in user.screen.splitlines()]
        assert "Tiny-1B · 50 tokens/s · " in lines[lines.index("One.") + 1]
        await user.is_idle()
        await user.pilot.press("ctrl+up")
        await user.sees(" tokens written, ")
        await user.pilot.press("escape")
        await user.until(lambda: "written" not in user.screen, "folded again")
    assert [m.model for m in chats.load(1).messages] == [None, "Tiny-1B", None, "Another 2B"]


async def test_a_model_has_the_name_that_lists_give_it(
    chats: Chats, tmp_path: Path, home: Path
) -> None:
    folder = home / "data" / "models" / "smollm2-135m"
    folder.mkdir(parents=True)
    (folder / "model.gguf").touch()
    engine = FakeEngine(["One."])
    async with at_the_terminal(engine, chats, folder / "model.gguf") as user:
        await user.until(lambda: "ctx" in user.status, "loaded")
        user.chat.engine.title = "SmolLM2 135M"
        await user.says("Hi")
        await user.sees("SmolLM2 135M · ")
        await user.is_idle()
    chats.export(chats.headings()[0].id, tmp_path / "out.md")
    assert "## SmolLM2 135M, " in (tmp_path / "out.md").read_text(encoding="utf-8")


async def test_a_formula_that_is_being_written_is_one_already(open_app: OpenApp) -> None:
    gate = Gate()
    engine = FakeEngine([r"So \( x^2 + ", gate, r"y_1 \) and ", "$5."])
    async with open_app(engine) as user:
        await user.says("Hi")
        await user.sees("So x² +")
        gate.open()
        await user.sees("So x² + y₁ and $5.")
        await user.is_idle()


@pytest.mark.parametrize("first", ["word " * 1000, "```\n" + "code\n" * 1000])
async def test_what_comes_while_a_long_block_is_read_is_shown_though_no_more_follows(
    open_app: OpenApp, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    read, write = Document.read, ReplyBody.write
    begun, come, may_end = asyncio.Event(), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def read_slowly(self: Document, *, whole: bool = False) -> ParsedEnd:
        reading = read(self, whole=whole)
        if threading.current_thread() is not threading.main_thread():
            loop.call_soon_threadsafe(begun.set)
            assert may_end.wait(60)
        return reading

    async def write_and_tell(self: ReplyBody, text: str) -> None:
        await write(self, text)
        if text == "the last words":
            come.set()

    monkeypatch.setattr(Document, "read", read_slowly)
    monkeypatch.setattr(ReplyBody, "write", write_and_tell)
    gate, never = Gate(), Gate()
    async with open_app(FakeEngine([first, gate, "the last words", never])) as user:
        await user.types("Hi")
        user.pilot.app.post_message(events.Key("enter", None))  # the pilot would wait for the body
        await begun.wait()
        gate.open()
        await come.wait()
        may_end.set()
        await user.sees("the last words")


async def test_thinking_is_drawn_as_it_comes_once_it_is_open(open_app: OpenApp) -> None:
    gate = Gate()
    thought = Chunk(text="First **weigh** it.", part="thinking")
    async with open_app(
        FakeEngine([thought, gate, Chunk(text=" Then `do`.", part="thinking"), "Yes."])
    ) as user:
        await user.says("Hi")
        await user.sees("Thinking …")
        user.pilot.app.screen.query_one(Thinking).collapsed = False
        await user.sees("First weigh it.")
        gate.open()
        await user.sees("First weigh it. Then do.")
        await user.sees("Yes.")
        await user.is_idle()


@pytest.mark.parametrize("thinks", [False, True])
async def test_a_reply_that_is_taken_away_takes_what_still_comes(
    open_app: OpenApp, *, thinks: bool
) -> None:
    none: dict[str, Any] = {f.name: 0 for f in msgspec.structs.fields(Statistics) if f.required}
    thought = Chunk(text="So\n" * 9, part="thinking")
    async with open_app(FakeEngine()) as user:
        reply = Reply()
        await user.chat.query_one(Transcript).mount(reply)
        if thinks:
            await reply.show([thought])
        await reply.remove()
        for text in ("word " * 1000, "more\n\n" * 99, CODE):
            await reply.show([thought, Chunk(text=text, part="answer")])
        await reply.go_on()
        await reply.show([Finished(reason="stop", statistics=Statistics(**none))])
        reply.end("cancelled")
        await reply.finish()
        assert CODE in reply.source


async def test_a_reply_has_room_though_the_screen_was_arranged_a_moment_before(
    open_app: OpenApp,
) -> None:
    async with open_app(FakeEngine([""])) as user:
        body, transcript = ReplyBody(), user.chat.query_one(Transcript)
        await transcript.mount(body)
        await user.pilot.pause()
        body.refresh(layout=True)
        transcript._clear_arrangement_cache()
        user.chat._refresh_layout()
        await body.write("It grows.")
        await user.sees("It grows.")


async def test_where_nothing_is_drawn_code_and_tables_are_text(
    chats: Chats, open_app: OpenApp
) -> None:
    reply = f"{CODE}\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    async with open_app(FakeEngine([reply]), app=config.App(linear=True)) as user:
        await user.says("Hi")
        await user.sees("| 1 | 2 |")
        await user.is_idle()
        assert "python:\n" in user.screen.replace(" ", "")
        assert "▎" not in user.screen


async def test_code_may_be_drawn_while_the_colours_of_other_code_are_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tui.markdown.code._prepared", {})
    prepare, body = Code.prepare, ReplyBody()
    codes = [Code(language) for language in ("python", "rust", "c", "no language")]

    def prepare_and_draw(code: Code) -> None:
        prepare(code)
        body._plain |= dict.fromkeys(codes[: codes.index(code) + 2], 1)

    monkeypatch.setattr(Code, "prepare", prepare_and_draw)
    body._plain[codes[0]] = 1
    await body._colour_more()
    assert all(code.ready for code in codes)
    assert not body._plain


@pytest.mark.parametrize(
    ("used", "n_ctx", "told"),
    [
        (300, 4096, "Cut short: the model repeated itself. Ask in other words, or"),
        (4096, 4096, "Cut short: the context is full."),
        (300, 0, "Cut short."),  # a server, which does not say
    ],
)
async def test_a_reply_that_was_cut_short_says_why(
    open_app: OpenApp, chats: Chats, used: int, n_ctx: int, told: str
) -> None:
    chat = long_chats.write(chats, ["Hi", "And so on"])
    figures = Statistics(
        prompt_tokens=30,
        reused_tokens=0,
        prompt_ms=100.0,
        generated_tokens=3,
        generated_ms=60.0,
        context_tokens=used,
        n_ctx=n_ctx,
        peak_ram_bytes=0,
        seed=1,
    )
    with chats.database.write() as connection:
        connection.execute(
            "UPDATE message SET finish_reason = 'length', statistics = ? WHERE role = 'assistant'",
            (msgspec.json.encode(figures).decode(),),
        )
    async with open_app(FakeEngine(), earlier=chats.load(chat)) as user:
        await user.sees("And so on")
        await user.sees(told)


async def test_why_a_reply_was_cut_short_is_not_said_of_its_other_versions(
    open_app: OpenApp,
) -> None:
    endless = Notice(text="The model said the same thing again and again.", says_end=True)
    async with open_app(FakeEngine(["And so on and so on", endless], ["Hello."])) as user:
        await user.says("Hi")
        await user.sees("And so on and so on")
        await user.is_idle()
        await user.says("/again")
        await user.sees("2/2")
        await user.is_idle()
        assert "again and again" not in user.screen
