"""Messages in the app that are too long, and what the status line says of the context."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from terminal_user import OpenApp, User

from ondevice.chats import Attachment, Chats, Message
from ondevice.errors import ContextError, EngineDied
from ondevice.messages import Finished, PromptProgress, Statistics
from ondevice.testing import FakeEngine, Gate
from tui.widgets.user_message import describe

INVOICE = "The invoice of Mr Bergstrom came to 4711 crowns."


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    lines = [f"In line {n} the ship sails on over the sea." for n in range(3000)]
    lines[2000] = INVOICE
    Path("big.txt").write_text("\n".join(lines))


def saved(chats: Chats) -> tuple[Message, ...]:
    """The messages of the latest conversation."""
    headings = chats.headings()
    return chats.load(headings[0].id).messages if headings else ()


async def says(user: User, text: str) -> None:
    await user.until(lambda: "ctx" in user.status, "a model")
    user.prompt.text = text
    await user.pilot.press("enter")


async def test_what_does_not_fit_goes_back_into_the_prompt(chats: Chats, open_app: OpenApp) -> None:
    engine = FakeEngine()
    async with open_app(engine) as user:
        await says(user, "Summarize @big.txt")
        await user.sees("too long for the model: it needs more than 8,192 tokens")
        assert "room for 4,096" in user.screen
        assert not saved(chats)
        await user.pilot.press("escape")
        await user.until(lambda: user.prompt.text == "Summarize @big.txt", "the text again")
        await user.sees("Nothing you write leaves it.")
        assert not saved(chats)
        await says(user, "never mind, say hello")
        await user.sees("Hello.")
    assert [m.content for m in saved(chats)] == ["never mind, say hello", "Hello."]


async def test_a_long_message_waits_for_the_reply_in_another_tab_and_is_measured_then(
    chats: Chats, open_app: OpenApp
) -> None:
    gate = Gate()
    async with open_app(FakeEngine(["One, ", gate, "two."], ["Yes."])) as user:
        await says(user, "Count")
        await user.sees("One,")
        await user.pilot.press("ctrl+n")
        await says(user, "Summarize @big.txt")
        await user.until(lambda: "waiting" in user.status, "waiting")
        await user.sees("+ big.txt")  # it is shown, though not sent
        assert [m.content for m in saved(chats)] == ["Count", "One, "]
        gate.open()
        await user.sees("too long for the model")
        await user.pilot.press("escape")
        await user.until(lambda: user.prompt.text == "Summarize @big.txt", "the text again")
        await user.pilot.press("enter")
        await user.sees("too long for the model")
        await user.pilot.press("enter")
        await user.sees("Yes.")
        await user.is_idle()
    assert saved(chats)[0].attachments[0].name == "big.txt (passages)"


async def test_a_long_message_that_waits_is_given_back_when_it_is_stopped(
    chats: Chats, open_app: OpenApp
) -> None:
    gate = Gate()
    async with open_app(FakeEngine(["One, ", gate, "two."])) as user:
        await says(user, "Count")
        await user.sees("One,")
        await user.pilot.press("ctrl+n")
        await says(user, "Summarize @big.txt")
        await user.until(lambda: "waiting" in user.status, "waiting")
        await user.pilot.press("escape")
        await user.until(lambda: user.prompt.text == "Summarize @big.txt", "the text again")
        await user.sees("Nothing you write leaves it.")
        gate.open()
        await user.pilot.press("f6")
        await user.sees("One, two.")
    assert len(chats.headings()) == 1


async def test_of_a_long_file_what_matters_to_the_question_is_sent(
    chats: Chats, open_app: OpenApp
) -> None:
    async with open_app(FakeEngine()) as user:
        await says(user, "How much was the invoice in @big.txt?")
        await user.sees("too long")
        await user.pilot.press("enter")
        await user.sees("Hello.")
        await user.is_idle()
        (attachment,) = saved(chats)[0].attachments
        assert attachment.name == "big.txt (passages)"
        assert INVOICE in attachment.content
        assert attachment.content.startswith("In line 0 ")
        assert "\n…\n" in attachment.content
        assert len(saved(chats)[0].prompt().split()) < 3072
        # What was sent can be looked at, and more of it when the message is edited.
        assert INVOICE not in user.screen
        await user.pilot.press("ctrl+up", "up", "a")
        await user.sees("In line 0 the ship")
        await user.pilot.press("e")
        await user.sees("Editing")
        await user.pilot.press("enter")
        await user.sees("too long")
        await user.pilot.press("down", "enter")
        await user.is_idle()
    (attachment,) = saved(chats)[0].attachments
    assert attachment.name == "big.txt (beginning)"
    assert len(attachment.content.split()) > 2000


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("pasted text 2, 6000 lines", "pasted text 2, 3 lines"),
        ("pasted text 2, 6000 lines (passages)", "pasted text 2 (passages), 3 lines"),
        ("big.txt (beginning)", "big.txt (beginning), 3 lines"),
    ],
)
def test_the_lines_are_those_of_what_is_sent(name: str, told: str) -> None:
    assert describe(Attachment(name, "a\n…\nz")) == told


@pytest.mark.parametrize("error", [ContextError("Too long."), EngineDied("It died.")])
async def test_a_message_that_met_an_error_is_marked_and_asked_again(
    chats: Chats, open_app: OpenApp, error: Exception
) -> None:
    async with open_app(FakeEngine([error], ["Yes."])) as user:
        await says(user, "Hi")
        await user.sees("No reply yet")
        assert str(error) in user.screen
        await user.says("/continue")
        await user.sees("Yes.")
        await user.is_idle()
        await user.until(lambda: "No reply yet" not in user.screen, "no mark any more")


async def test_a_message_that_is_stopped_before_its_reply_begins_is_marked(
    chats: Chats, open_app: OpenApp
) -> None:
    """It waits for the engine, which another tab has, or for a model."""
    gate = Gate()
    async with open_app(FakeEngine(["Long", gate], ["Yes."])) as user:
        await says(user, "First")
        await user.sees("Long")
        await user.pilot.press("ctrl+n")
        await says(user, "Second")
        await user.until(lambda: "waiting" in user.status, "waiting")
        await user.until(lambda: [m.content for m in saved(chats)] == ["Second"], "stored")
        await user.pilot.press("escape")
        await user.sees("No reply yet")
        gate.open()
        await user.says("/continue")
        await user.sees("Yes.")
        await user.until(lambda: "No reply yet" not in user.screen, "no mark any more")


async def test_a_message_for_which_no_model_comes_is_marked(
    chats: Chats, open_app: OpenApp
) -> None:
    async with open_app(FakeEngine(loads=[[0.25, Gate()], [1.0]])) as user:
        await user.says("Hi")
        await user.sees("loading 25%")
        await user.until(lambda: [m.content for m in saved(chats)] == ["Hi"], "stored")
        await user.pilot.press("escape")
        await user.sees("No reply yet")


def progress(done: int, **more: int) -> PromptProgress:
    return PromptProgress(done=done, total=2000, **more)


async def test_the_context_is_told_while_a_prompt_is_read_and_as_it_grows(
    chats: Chats, open_app: OpenApp
) -> None:
    chat = chats.create()
    chats.say(chat, "one two three")
    gates = Gate(), Gate()
    end = Statistics(
        prompt_tokens=2100,
        reused_tokens=100,
        prompt_ms=1.0,
        generated_tokens=2,
        generated_ms=1.0,
        context_tokens=2102,
        n_ctx=8192,
        peak_ram_bytes=0,
        seed=1,
    )
    engine = FakeEngine(
        [
            progress(500, reused=100, n_ctx=4096),
            gates[0],
            progress(2000, reused=100, n_ctx=8192),
            "Yes",
            gates[1],
            Finished(reason="stop", statistics=end),
        ]
    )
    async with open_app(engine, earlier=chats.load(chat)) as user:
        await user.until(lambda: "ctx 3/4096" in user.status, "that of the chat")
        await says(user, "Hi")
        await user.until(lambda: "ctx 600/4096" in user.status, "while it is read")
        await user.until(lambda: re.search(r"reading 25%, \d+ s", user.status), "the seconds")
        gates[0].open()
        await user.until(lambda: "ctx 2101/8192" in user.status, "a context that has grown")
        await user.pilot.press("ctrl+n")
        await user.until(lambda: "ctx 0/8192" in user.status, "that of another tab")
        gates[1].open()
