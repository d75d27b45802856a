"""Whole chats in the terminal app: find, rename, pin, archive, delete; and the memory in them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile_chats
import pytest
from hostile_chats import chatgpt
from terminal_user import PATIENCE, OpenApp
from textual.events import Paste

from ondevice import config
from ondevice.chats import Chats, Heading
from ondevice.messages import Generate
from ondevice.testing import FakeEngine, Gate
from tui.app import OndeviceApp
from tui.screens.chat import ChatScreen
from tui.screens.memory import MemoryScreen


async def test_a_chat_is_found_by_a_word_in_it_and_opens_there(
    chats: Chats, open_app: OpenApp
) -> None:
    chat = chats.create()
    chats.say(chat, "The quick brown fox")
    for number in range(60):
        chats.say(chat, f"Message {number}\nof two lines")
    chats.say(chats.create(), "A lazy dog")
    async with open_app(FakeEngine()) as user:
        await user.pilot.press("ctrl+r")
        await user.sees("A lazy dog")
        await user.pilot.press(*"brow")
        await user.until(lambda: "lazy" not in user.screen, "only the fox")
        await user.pilot.press("enter")
        await user.sees("▌  The quick brown fox")
        await user.pilot.press("ctrl+f")
        await user.sees("This chat")
        await user.pilot.press(*"59", "enter")
        await user.sees("▌  Message 59")


async def test_what_is_in_another_branch_is_found_and_shown(
    chats: Chats, open_app: OpenApp
) -> None:
    chat = chats.create()
    old = chats.say(chat, "Nightingale").message_id
    chats.say(chat, "Sparrow", instead_of=old)
    async with open_app(FakeEngine(), earlier=chats.load(chat)) as user:
        await user.sees("Sparrow")
        await user.says("/find nightingale")
        await user.sees("This chat")
        await user.pilot.press("enter")
        await user.sees("▌  Nightingale")


async def test_what_is_found_in_this_chat_does_not_repeat_its_title(
    chats: Chats, open_app: OpenApp
) -> None:
    chat = chats.create()
    chats.say(chat, "A nightingale")
    chats.say(chat, "Two nightingales")
    chats.rename(chat, "Birds")
    async with open_app(FakeEngine(), earlier=chats.load(chat)) as user:
        await user.says("/find nightingale")
        await user.sees("│ A nightingale")
        await user.sees("│ Two nightingales")
        assert "Birds" not in user.screen.partition("\n")[2]


async def test_chats_are_renamed_pinned_and_archived_in_the_list(
    chats: Chats, open_app: OpenApp
) -> None:
    for text in ("One", "Two", "Three"):
        chats.say(chats.create(), text)
    async with open_app(FakeEngine()) as user:
        await user.pilot.press("ctrl+r", "down", "f2")
        await user.sees("Rename")
        await user.pilot.press(*"!", "enter")
        await user.sees("Two!")
        await user.pilot.press("f3")
        await user.sees("Pinned · today")
        await user.pilot.press("f4")
        await user.until(lambda: "Two!" not in user.screen, "archived")
        await user.pilot.press("f5")
        await user.sees("Archived chats")
        await user.sees("Pinned · today")
    assert [heading.title for heading in chats.headings()] == ["Three", "One"]


async def test_the_chat_on_the_screen_is_renamed_and_pinned(
    chats: Chats, open_app: OpenApp
) -> None:
    async with open_app(FakeEngine()) as user:
        await user.says("/pin")
        await user.sees("This chat is empty")
        await user.says("Hi")
        await user.is_idle()
        await user.says("/rename A title")
        await user.sees("Chat renamed.")
        await user.says("/pin")
        await user.sees("Chat pinned.")
    (heading,) = chats.headings()
    assert (heading.title, heading.pinned) == ("A title", True)


async def test_a_deleted_chat_is_gone_from_the_screen_too(chats: Chats, open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        await user.says("I live in Lisbon.")
        await user.is_idle()
        await user.says("/delete")
        await user.sees("for good?")
        await user.pilot.press("enter")
        await user.until(lambda: "for good?" not in user.screen, "closed")
        assert len(chats.headings()) == 1
        await user.says("/delete")
        await user.sees("for good?")
        await user.pilot.press("down", "down", "enter")
        await user.sees("Nothing you write leaves it")
    assert chats.headings() == []
    assert not chats.memory.search("Lisbon").hits


async def test_a_chat_is_exported_and_imported(
    chats: Chats, open_app: OpenApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    async with open_app(FakeEngine(["Hello **you**."])) as user:
        await user.says("Hi")
        await user.is_idle()
        await user.says("/export a.md")
        await user.sees(f"Chat exported to ~{os.sep}a.md.")
        await user.says("/export a.json")
        await user.until((tmp_path / "a.json").exists, "a.json")
        (tmp_path / "a.md").write_text("mine")
        await user.says("/export a.md")
        await user.sees("already exists. Replace it?")
        await user.pilot.press("enter")
        await user.until(lambda: "Replace it?" not in user.screen, "closed")
        assert (tmp_path / "a.md").read_text() == "mine"
        await user.says("/export a.md")
        await user.sees("already exists. Replace it?")
        await user.pilot.press("down", "enter")
        await user.until(lambda: "Hello **you**." in (tmp_path / "a.md").read_text(), "replaced")
        await user.says("/import a.json")
        await user.sees("One chat was already here.")

        chats.delete(chats.headings()[0].id)
        await user.pilot.press("ctrl+n")
        await user.until(lambda: "Hello" not in user.screen, "a new chat")
        await user.pilot.press(*"/import", "space", *"a.j", "tab")
        await user.until(lambda: user.prompt.text == "/import a.json", "completed")
        await user.pilot.press("enter")
        await user.sees("deleted here before: “Hi”")
        await user.pilot.press("down", "enter")
        await user.sees("Remember it")
        await user.pilot.press("down", "enter")
        await user.sees("Hello you.")
        await user.sees("One of your messages was remembered.")
        assert len(chats.headings()) == 1

        await user.says("/import undo")
        await user.sees("Undo the import of a.json")
        await user.pilot.press("down", "enter")
        await user.sees("Import of a.json undone.")
        await user.until(lambda: "Hello you." not in user.screen, "gone")
        assert chats.headings() == []
        await user.says("/import undo")
        await user.sees("There is no import to undo.")


async def test_what_an_import_leaves_out_is_named(
    chats: Chats, open_app: OpenApp, tmp_path: Path
) -> None:
    odd = chatgpt("A trip", mapping=None)
    (tmp_path / "conversations.json").write_text(hostile_chats.chats(odd, chatgpt("Birds")))
    async with open_app(FakeEngine(), size=(100, 30)) as user:
        await user.says(f"/import {tmp_path}")
        await user.sees("One chat was added.")
        await user.pilot.press("enter")
        await user.sees("One item was left out:")
        await user.sees("“A trip”: ")
        await user.sees("Hello there")
    assert [heading.title for heading in chats.headings()] == ["Birds"]


@pytest.mark.parametrize("quit", [False, True])
async def test_an_import_is_stopped_with_escape_and_by_quitting(
    chats: Chats, open_app: OpenApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quit: bool
) -> None:
    many = [chatgpt(str(n)) for n in range(1000)]
    (tmp_path / "conversations.json").write_text(hostile_chats.chats(*many))
    import_ = Chats.import_

    def slow(  # one batch, and then as long as it takes to be stopped
        self: Chats,
        path: Path,
        put: Callable[[int], None],
        cancel: threading.Event,
        *others: Any,
    ) -> list[int]:
        def on_progress(count: int) -> None:
            put(count)
            assert cancel.wait(60)

        return import_(self, path, on_progress, cancel, *others)

    monkeypatch.setattr(Chats, "import_", slow)
    async with open_app(FakeEngine(), size=(100, 30)) as user:
        await user.says(f"/import {tmp_path / 'conversations.json'}")
        await user.sees("250 chats so far")
        if quit:
            await user.pilot.press("ctrl+q")
        else:
            await user.pilot.press("escape")
            await user.sees("Import stopped. 250 chats were added before that.")
    assert 250 <= len(chats.headings()) <= 500


async def test_what_is_not_to_be_remembered_is_not_and_the_user_is_told(open_app: OpenApp) -> None:
    async with open_app(FakeEngine(["Noted.", "Fine."])) as user:
        await user.says("Don't save this: my sister likes pears.")
        await user.sees("Not remembered, as you asked.")
        await user.sees("Noted.")
        await user.is_idle()
        await user.says("/new")
        await user.says("My brother likes plums.")
        await user.sees("Fine.")
        assert "Not remembered" not in user.screen


async def test_a_note_is_remembered_recalled_shown_and_forgotten(
    chats: Chats, open_app: OpenApp
) -> None:
    engine = FakeEngine(["You like pears."])
    async with open_app(engine, size=(100, 30)) as user:
        await user.says("/remember My sister likes pears.")
        await user.sees("Remembered: My sister likes pears.")
        await user.says("What does my sister like?")
        await user.sees("You like pears.")
        await user.is_idle()
        await user.sees("Used 1 memory")
        request = engine.requests[-1]
        assert isinstance(request, Generate)
        assert '"My sister likes pears."' in request.turns[-1].content
        assert request.turns[-1].content.endswith("What does my sister like?")

        await user.says("/forget pears")
        await user.sees("Memory")
        await user.pilot.press("f8")
        await user.sees("Forget for good")
        await user.pilot.press("down", "enter")
        await user.until(lambda: "Forget for good" not in user.screen, "closed")
        await user.pilot.press("escape")
        await user.until(lambda: "Used 1 memory" not in user.screen, "forgotten")
    assert not [hit for hit in chats.memory.search("pears").hits if "sister" in hit.cube.content]


async def test_what_is_forgotten_after_the_list_was_closed_goes_from_the_chat(
    chats: Chats, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats.memory.add("My sister likes pears.")
    forget, closed = chats.memory.forget, threading.Event()

    def slowly(*what: Any) -> None:
        assert closed.wait(PATIENCE)
        forget(*what)

    monkeypatch.setattr(chats.memory, "forget", slowly)
    async with open_app(FakeEngine(["Pears."]), size=(100, 30)) as user:
        await user.says("What fruit does my sister like?")
        await user.sees("Used 1 memory")
        await user.is_idle()
        await user.says("/forget pears")
        await user.sees("Memory")
        await user.pilot.press("f8")
        await user.sees("Forget for good")
        await user.pilot.press("down", "enter", "escape")
        await user.until(lambda: isinstance(user.pilot.app.screen, ChatScreen), "closed")
        closed.set()
        await user.until(lambda: "Used 1 memory" not in user.screen, "forgotten")


async def test_which_memories_a_reply_used_and_why(chats: Chats, open_app: OpenApp) -> None:
    chats.memory.add("My sister likes pears.")
    chats.memory.add("The bins go out on Monday.")
    async with open_app(FakeEngine(["Pears."]), size=(100, 30)) as user:
        await user.says("What fruit does my sister like?")
        await user.sees("Used 1 memory")
        await user.is_idle()
        await user.pilot.press("shift+tab", "m")
        await user.sees("Memory: used by the reply")
        await user.sees("matches sister, like")
        assert "Monday" not in user.screen
        await user.pilot.press("escape")
        await user.says("/used")
        await user.sees("matches sister, like")


async def test_memories_are_filtered_archived_and_followed_along_their_links(
    chats: Chats, open_app: OpenApp
) -> None:
    chats.memory.add("I live in Porto.")
    chats.memory.add("The bins go out on Monday.")
    chats.memory.add("I live in Lisbon.")
    async with open_app(FakeEngine(), size=(100, 30)) as user:
        await user.pilot.press("ctrl+o")
        await user.sees("Lisbon")
        await user.pilot.press("f4")
        await user.sees("What you asked")
        await user.pilot.press("down", "down", "enter")
        await user.sees("Memory: facts")
        await user.until(lambda: "bins" not in user.screen, "only facts")
        await user.pilot.press("f3")
        await user.sees("based on: I live in Lisbon.")
        await user.sees("replaces: ")
        await user.pilot.press("escape", "f4")
        await user.sees("What you asked")
        await user.pilot.press("home", "enter")
        await user.sees("Memory ─")
        await user.pilot.press(*"bins")
        await user.until(lambda: "Lisbon" not in user.screen, "found")
        await user.pilot.press("f6")
        await user.sees("No matches.")
    assert [cube.content for cube in chats.memory.latest(status="archived")] == [
        "The bins go out on Monday."
    ]


async def test_the_memory_is_paused_and_goes_on(chats: Chats, open_app: OpenApp) -> None:
    async with open_app(FakeEngine(["Good."]), size=(100, 30)) as user:
        await user.says("I live in Porto.")
        await user.is_idle()
        await user.pilot.press("ctrl+o")
        await user.sees("I live in Porto.")
        await user.pilot.press("f5")
        await user.sees("Memory (paused)")
        await user.sees("Memory is paused, in this chat and in new ones.")
        await user.sees("F5 resume")
        await user.pilot.press("escape")
        await user.until(lambda: "memory paused" in user.status, "paused")
        await user.says("My cat is called Mia.")
        await user.is_idle()
        assert not chats.memory.search("cat").hits
        assert not config.load().memory
        await user.says("/pause")
        await user.until(lambda: "paused" not in user.status, "on again")
        await user.says("My dog is called Rex.")
        await user.is_idle()
    assert chats.memory.search("dog").hits


async def test_the_list_of_memories_may_close_while_a_key_pressed_in_it_is_at_work(
    chats: Chats, open_app: OpenApp
) -> None:
    async with open_app(FakeEngine()) as user:
        await user.pilot.press("ctrl+o")
        await user.sees("Memory")
        screen = user.pilot.app.screen
        assert isinstance(screen, MemoryScreen)
        pause = screen._pause

        async def closes() -> None:
            await pause()
            screen.action_close()
            await user.until(lambda: not screen.is_attached, "gone")

        screen._pause = closes
        await asyncio.wait_for(screen.action_pause(), 60)
        await screen._do(lambda: None)
        await user.until(lambda: "memory paused" in user.status, "paused")


async def test_from_a_memory_to_the_message_it_was_read_from(
    chats: Chats, open_app: OpenApp
) -> None:
    chats.say(chats.create(), "By the way, I live in Lisbon.")
    async with open_app(FakeEngine()) as user:
        await user.pilot.press("ctrl+o")
        await user.sees("Lisbon")
        await user.pilot.press(*"city", "enter")
        await user.sees("▌  By the way")


async def test_no_other_chat_is_deleted_that_is_shown_meanwhile(
    chats: Chats, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate, heading = threading.Event(), threading.Event(), Chats.heading

    def slow(self: Chats, conversation_id: int) -> Heading | None:
        begun.set()
        assert gate.wait(PATIENCE)
        return heading(self, conversation_id)

    async with open_app(FakeEngine()) as user:
        await user.says("For the disk")
        await user.is_idle()
        await user.says("/private")
        await user.until(lambda: "private" in user.status, "private")
        await user.says("For nobody")  # in its store it has the number of the other one
        await user.is_idle()
        monkeypatch.setattr(Chats, "heading", slow)
        chat = user.chat
        await user.says("/delete")
        await user.until(begun.is_set, "begun")
        chat.action_tab(-1)
        assert not chat.in_private
        gate.set()
        await user.sees("Delete it and forget")
        await user.pilot.press("down", "enter")
        await user.until(lambda: len(chat.conversations) == 1, "closed")
    assert [heading.title for heading in chats.headings()] == ["For the disk"]


async def test_a_private_chat_is_written_nowhere(
    chats: Chats, open_app: OpenApp, home: Path
) -> None:
    chats.say(chats.create(), "I live in Lisbon.")
    async with open_app(FakeEngine(["Porto is "], ["nice."])) as user:
        await user.says("/private")
        await user.sees("not saved or remembered")
        assert "private" in user.status
        await user.says("I live in Portozebra, and where did I live before?")
        await user.is_idle()
        await user.sees("Porto is")
        await user.pilot.press("ctrl+f", *"portozebra", "enter")  # found in the chat itself
        await user.sees("▌  I live in Portozebra")
        await user.says("And now?")
        await user.is_idle()
        assert [heading.title for heading in chats.headings()] == ["I live in Lisbon."]
        folders = (home, chats.database.path.parent)
        files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
        assert files
        assert not [file for file in files if b"portozebra" in file.read_bytes().lower()]
        await user.says("/close")
        await user.sees("gone for good")
        await user.pilot.press("down", "enter")
        await user.until(lambda: "private" not in user.status, "closed")
        await user.says("I live in Porto.")
        await user.sees("Remembered: ")
    assert chats.memory.search("Porto").hits
    assert not chats.memory.search("Portozebra").hits


async def test_what_was_typed_is_read_for_facts_while_the_user_is_away(
    chats: Chats, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ondevice.chats._fact_reading._LEAST_PARAMETERS", 1)
    monkeypatch.setattr("tui.idle_learning.on_battery", lambda: False)
    monkeypatch.setattr(OndeviceApp, "_think_of_title", lambda *_: None)
    read = ["pet | me | adopted a greyhound"]
    engine = FakeEngine(["Nice."], ["So."], asides=([Gate()], read, ["."]))
    async with open_app(engine) as user:
        app = user.pilot.app
        assert isinstance(app, OndeviceApp)

        def a_minute_passes() -> None:
            with monkeypatch.context() as patch:
                patch.setattr("tui.app._AWAY", 0.0)
                app._learn()

        await user.says("I adopted a greyhound.")
        await user.sees("Nice.")
        await user.is_idle()
        a_minute_passes()
        await user.until(lambda: len(engine.requests) == 3, "being read")
        await user.says("And now?")  # stops it
        await user.sees("So.")
        await user.is_idle()
        assert chats.memory.unread() is not None
        a_minute_passes()
        await user.until(lambda: len(engine.requests) == 6, "the conversation again")
    (fact,) = chats.memory.latest(kind="fact")
    assert "greyhound" in fact.content
    *_, again = engine.requests
    assert isinstance(again, Generate)
    assert [turn.content for turn in again.turns if turn.role == "assistant"] == ["Nice.", "So."]


async def test_facts_are_not_read_from_what_is_pasted(chats: Chats, open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        await user.pilot.press(*"Look:", "ctrl+j")
        user.prompt.post_message(Paste("I live in Rome.\nMy dog is called Rex."))
        await user.sees("Rex.")
        await user.pilot.press("ctrl+j", *"I live in Lyon.", "enter")
        await user.is_idle()
    facts = [cube.content for cube in chats.memory.latest(kind="fact")]
    assert len(facts) == 1 and "Lyon" in facts[0]
    assert chats.memory.search("Rome").hits
