"""The prompt of the terminal app: history, commands, completion, attachments, folded pastes."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

import pytest
from terminal_user import OpenApp
from textual import events

from ondevice.chats import Attachment, Chats, Message
from ondevice.errors import FileError
from ondevice.testing import FakeEngine
from tui.app import OndeviceApp
from tui.attachments import Pastes, attached, files
from tui.commands import COMMANDS
from tui.screens.chat import ChatScreen


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def first(chats: Chats) -> Message:
    """The first message of the latest conversation."""
    return chats.load(chats.headings()[0].id).messages[0]


async def test_up_brings_back_what_was_said_before_in_any_chat(
    chats: Chats, open_app: OpenApp
) -> None:
    chats.say(chats.create(), "long ago")
    async with open_app(FakeEngine()) as user:
        await user.says("just now")
        await user.is_idle()
        await user.pilot.press("d", "r", "up")
        assert user.prompt.text == "just now"
        await user.pilot.press("up", "up")
        assert user.prompt.text == "long ago"
        await user.pilot.press("down", "down")
        assert user.prompt.text == "dr"


async def test_up_and_down_move_within_lines_first(open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        await user.pilot.press("a", "ctrl+j", "b", "up", "x", "down", "y")
        assert user.prompt.text == "ax\nby"


async def test_commands_are_completed(open_app: OpenApp) -> None:
    async with open_app(FakeEngine(), size=(80, 30)) as user:
        await user.pilot.press("/")
        await user.sees("/new")
        await user.pilot.press("r", "e")
        await user.sees("/rename TITLE  Rename this chat")
        assert "/new" not in user.screen
        await user.pilot.press("down", "tab")
        assert user.prompt.text == "/remember "
        await user.until(lambda: "Rename this chat" not in user.screen, "no more choices")
        user.prompt.text = ""
        await user.says("/mod")
        assert user.prompt.text == "/models"
        await user.pilot.press("enter")
        await user.sees("not downloaded")


@pytest.mark.parametrize(
    "typed",
    [
        *(f"/{command.name} {word}" for command in COMMANDS for word in command.words),
        *(f"/{command.name} " for command in COMMANDS if command.argument.startswith("[")),
    ],
)
async def test_enter_gives_a_whole_command_whatever_files_are_like_it(
    open_app: OpenApp, typed: str
) -> None:
    Path("-".join(typed.partition(" ")[2] or "a")).touch()
    async with open_app(FakeEngine()) as user:
        user.prompt.insert(typed)
        await user.pilot.pause()
        assert not user.prompt.completions.by_enter


async def test_the_words_of_a_command_are_completed(open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        for typed, text in (("/import un", "/import undo"), ("/compact e", "/compact edit")):
            user.prompt.text = ""
            user.prompt.insert(typed)
            await user.pilot.press("tab")
            assert user.prompt.text == text


async def test_an_unknown_command_is_not_sent_to_the_model(chats: Chats, open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        await user.says("/frobnicate now")
        await user.sees("There is no command /frobnicate.")
        assert user.prompt.text == "/frobnicate now"
        user.prompt.text = ""
        await user.says("/usr/bin is a path")
        await user.sees("Hello.")
    assert first(chats).content == "/usr/bin is a path"


async def test_a_command_that_takes_no_words_does_nothing_with_some(open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        before = user.chat.conversation
        for command in COMMANDS:
            if not command.argument:
                user.prompt.text = f"/{command.name} but only half"
                await user.pilot.press("enter")
                await user.sees(f"/{command.name} takes no words after it")
                assert user.prompt.text == f"/{command.name} but only half"
        assert user.chat.conversation is before


def test_every_command_has_an_action() -> None:
    for command in COMMANDS:
        owner, _, action = command.action.rpartition(".")
        assert callable(getattr(OndeviceApp if owner else ChatScreen, f"action_{action}"))


async def test_files_are_completed_and_attached(chats: Chats, open_app: OpenApp) -> None:
    Path("notes").mkdir()
    Path("notes/to do [x].md").write_text("milk\nbread\n")
    async with open_app(FakeEngine()) as user:
        await user.pilot.press(*"what", "space", "@", "n")
        await user.sees("notes/")
        await user.pilot.press("tab")
        assert user.prompt.text == "what @notes/"
        await user.sees("notes/to do [x].md")
        await user.pilot.press("tab")
        assert user.prompt.text == 'what @"notes/to do [x].md"'
        await user.pilot.press("enter")
        await user.sees("+ notes/to do [x].md, 2 lines")
        await user.is_idle()
    assert first(chats).attachments == (Attachment("notes/to do [x].md", "milk\nbread\n"),)
    assert not chats.memory.search("bread").hits


async def test_enter_takes_no_other_file_than_the_one_that_is_named(
    chats: Chats, open_app: OpenApp
) -> None:
    Path("old").mkdir()
    for file in ("list.md", "old/list.md"):
        Path(file).write_text(file)
    async with open_app(FakeEngine()) as user:
        await user.types("see @list.md")
        await user.sees("old/list.md")
        await user.pilot.press("enter")
        await user.sees("+ list.md")
        await user.is_idle()
    assert first(chats).attachments == (Attachment("list.md", "list.md"),)


async def test_a_file_that_holds_no_text_is_refused_and_nothing_is_lost(
    open_app: OpenApp,
) -> None:
    Path("picture.bin").write_bytes(b"\0\1")
    async with open_app(FakeEngine()) as user:
        await user.pilot.press(*"@picture.bin", "space", "enter")
        await user.sees("contains no text")
        assert user.prompt.text == "@picture.bin "


async def test_an_empty_file_is_not_called_a_scan(open_app: OpenApp) -> None:
    Path("empty.txt").touch()
    async with open_app(FakeEngine()) as user:
        await user.pilot.press(*"@empty.txt", "space", "enter")
        await user.sees("empty.txt contains no text.")
        assert "scanned" not in user.screen


async def test_the_app_lives_while_a_long_file_is_read(
    chats: Chats, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("long.txt").write_text("milk")
    read = threading.Event()

    def read_slowly(path: Path) -> str:
        assert read.wait(60)
        return path.read_text()

    monkeypatch.setattr("ondevice.memory.read_file", read_slowly)
    async with open_app(FakeEngine()) as user:
        user.prompt.text = "Read @long.txt"
        user.prompt.post_message(events.Key("enter", None))
        while "Reading the attached files" not in user.screen:
            await asyncio.sleep(0.02)  # the pilot would wait for the prompt
        user.prompt.post_message(events.Key("x", "x"))
        read.set()
        await user.until(lambda: user.prompt.text == "x", "what was typed meanwhile")
        await user.sees("Hello.")
    assert first(chats).attachments == (Attachment("long.txt", "milk"),)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
def test_what_is_too_large_or_no_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "large.txt").open("wb") as large:
        large.truncate(2_000_000_000)
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "large.txt", tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(FileError, match=name.name):
            attached(f"Look at @{name} now")
    for text in (f"@{'x' * 5000}", "@~nobody-here", "@\0", "someone@example.org"):
        assert attached(text) == []


async def test_what_can_only_be_meant_as_a_file_is_not_sent_as_words(open_app: OpenApp) -> None:
    Path("notes").mkdir()
    Path("photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Path("app.zip").write_bytes(b"PK\x03\x04\0")
    async with open_app(FakeEngine()) as user:
        for text, told in {
            "Read @nofile.txt": "There is no file nofile.txt.",
            "Read @notes.": "notes is a folder.",
            'Read @"my plan"': "There is no file my plan.",
            "Read @./plan": "There is no file ./plan.",
            "Read @notes/plan": "There is no file notes/plan.",
            "What is on @photo.png?": "photo.png is a picture.",
            "Read @app.zip": "app.zip is an archive",
        }.items():
            user.prompt.text = text
            await user.pilot.press("escape", "enter")
            await user.sees(told)
            assert user.prompt.text == text
    for words in (
        "Thank @user, and @the.team!",
        "mail me@example.org or @example.org",
        "Follow @me@example.social",
        "npm i @types/node @angular/core",
        "@ home, @... and @.",
        "@app.route and @dataclass",
    ):
        assert attached(words) == [], words


async def test_a_paste_whose_text_is_gone_is_not_sent_without_it(
    chats: Chats, open_app: OpenApp
) -> None:
    async with open_app(FakeEngine()) as user:
        user.pilot.app.post_message(events.Paste("x" * 2000))
        await user.sees("[pasted text 1, 1 line]")
        user.prompt.text = "Explain [pasted text 7, 3000 lines]"
        await user.pilot.press("enter")
        await user.sees("The text behind [pasted text 7")
        for place in range(len("[pasted text 1, 1 line]")):
            whole = "Explain [pasted text 1, 1 line] now"
            at = len("Explain ") + place
            user.prompt.text = text = whole[:at] + whole[at + 1 :]
            await user.pilot.press("enter")
            assert user.prompt.text == text
        user.prompt.text = "Explain [1, 2] and lines [3] of the pasted text"
        await user.pilot.press("enter")
        await user.until(lambda: user.prompt.text == "", "sent")
        await user.is_idle()
    assert first(chats).content == "Explain [1, 2] and lines [3] of the pasted text"


def test_files_are_found_by_some_of_their_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("alpha.md", "src/parser/tokens.py", "src/top.py", ".git/tokens", "Alps.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    for number in range(30):
        Path(f"many{number}.txt").touch()
    Path("al\nof\u202eit.md").touch()  # which nobody could type
    assert files("al", 50) == ["Alps.txt", "alpha.md"]
    assert files("tokpy", 50) == ["src/parser/tokens.py"]
    assert files("src/tp", 50)[0] == "src/top.py"
    assert files("prtok", 50) == ["src/parser/tokens.py"]
    assert len(files("many", 50)) == 30
    assert "src" + os.sep in files("", 50)


async def test_a_long_paste_is_folded_and_goes_with_the_message(
    chats: Chats, open_app: OpenApp
) -> None:
    text = "\n".join(f"line {number}" for number in range(100))
    async with open_app(FakeEngine()) as user:
        user.pilot.app.post_message(events.Paste(text))
        await user.sees("[pasted text 1, 100 lines]")
        await user.says(" explain")
        await user.sees("+ pasted text 1, 100 lines\n")
        await user.is_idle()
        await user.says("/edit")
        await user.sees("Editing")
        await user.says("!")
        await user.is_idle()
    message = first(chats)
    assert message.content == "[pasted text 1, 100 lines] explain!"
    assert message.attachments == (Attachment("pasted text 1, 100 lines", text),)
    assert "line 99" in message.prompt()


def test_no_two_pastes_have_one_name() -> None:
    """Not even where a prompt came back with the second of two, or came into one with others."""
    texts = [f"{n}\n" * 40 for n in range(6)]
    before = Pastes()
    marks = [before.fold(text) for text in texts[:3]]
    prompt = f"{marks[1]} {marks[2]}"
    kept = {paste.name: paste.content for paste in before.mentioned(prompt)}
    pastes = Pastes()
    prompt = pastes.bring_back(prompt, kept)
    prompt += pastes.fold(texts[3], prompt)
    other = Pastes()
    folded = other.fold(texts[4]) + other.fold(texts[5])
    some = {paste.name: paste.content for paste in other.mentioned(folded)}
    prompt += pastes.bring_back(folded, some)
    assert [paste.content for paste in pastes.attached(prompt)] == texts[1:]
    assert pastes.fold(texts[0], "of a message: [pasted text 6, 2 lines]")[:14] == "[pasted text 7"


async def test_a_paste_beside_one_that_came_back(chats: Chats, open_app: OpenApp) -> None:
    texts = ["one\n" * 40, "two\n" * 40, "three\n" * 40]
    async with open_app(FakeEngine()) as user:
        for text in texts[:2]:
            user.pilot.app.post_message(events.Paste(text))
        await user.sees("[pasted text 2, 40 lines]")
        user.prompt.text = "[pasted text 2, 40 lines] "
        await user.pilot.pause(1)
    async with open_app(FakeEngine()) as user:
        await user.sees("[pasted text 2, 40 lines]")
        user.prompt.action_cursor_line_end()
        user.pilot.app.post_message(events.Paste(texts[2]))
        await user.sees("[pasted text 1, 40 lines]")
        await user.pilot.press("enter")
        await user.sees("Hello.")
    assert {one.content for one in first(chats).attachments} == {*texts[1:]}
