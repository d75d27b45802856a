"""The terminal app with the fake engine: every flow of a conversation."""

from __future__ import annotations

import re

import long_chats
import pytest
from terminal_user import OpenApp
from textual import events
from textual.binding import Binding
from textual.widgets import OptionList

from ondevice.chats import Chats, Message
from ondevice.errors import EngineDied, ModelFileError
from ondevice.messages import Aside, Chunk, Generate, Notice, PromptProgress, Turn
from ondevice.testing import FakeEngine, Gate, Step
from tui.app import OndeviceApp
from tui.screens.chat import ChatScreen
from tui.screens.chats import ChatsPanel
from tui.screens.models import ModelsScreen
from tui.widgets.prompt import PromptInput
from tui.widgets.thinking import Thinking


def saved(chats: Chats) -> tuple[Message, ...]:
    """The messages of the latest conversation."""
    return chats.load(chats.headings()[0].id).messages


async def test_a_reply_streams_in_and_is_drawn_as_markdown(chats: Chats, open_app: OpenApp) -> None:
    gate = Gate()
    engine = FakeEngine(["Use **", "bold", gate, "** words.\n\n```py\nx = 1\n", "```"])
    async with open_app(engine) as user:
        await user.says("How?")
        await user.sees("Use **bold")
        await user.sees("answering")
        gate.open()
        await user.sees("Use bold words.")
        await user.is_idle()
        assert "x = 1" in user.screen
        assert "```" not in user.screen
        assert "Tiny-1B" in user.status
        assert "tok/s" in user.status
        assert "ctx 35/4096" in user.status
    assert [m.content for m in saved(chats)] == [
        "How?",
        "Use **bold** words.\n\n```py\nx = 1\n```",
    ]


async def test_a_growing_paragraph_seldom_has_the_screen_arranged_anew(open_app: OpenApp) -> None:
    gates = [Gate() for _ in range(12)]
    lines = [f"Line {n} is of about as many letters as fit: some seventy. " for n in range(12)]
    steps = [step for pair in zip(lines, gates, strict=True) for step in pair]
    the_end = Gate()
    async with open_app(FakeEngine([*steps, "\n\nThe end.", the_end])) as user:
        await user.says("A story")
        await user.sees("Line 0")
        arranged: list[object] = []
        screen = user.pilot.app.screen
        screen.screen_layout_refresh_signal.subscribe(screen, arranged.append)
        for number, gate in enumerate(gates[:-1], 1):
            gate.open()
            await user.sees(f"Line {number}")
        assert 0 < len(arranged) <= len(lines) / 2
        gates[-1].open()
        await user.sees("The end.")
        drawn = [line.strip() for line in user.screen.splitlines()]
        place = drawn.index("The end.")
        assert drawn[place - 1] == "" and "Line 11" in " ".join(drawn[place - 3 : place - 1])
        the_end.open()


async def test_what_the_chat_takes_of_the_context_is_known_after_a_stop_before_the_first_word(
    chats: Chats, open_app: OpenApp
) -> None:
    chat = long_chats.write(chats, ["One two three.", "Four five six."])
    progress = PromptProgress(done=0, total=9)
    async with open_app(FakeEngine([progress, Gate()]), earlier=chats.load(chat)) as user:
        await user.says("Seven")
        await user.sees("reading")
        await user.pilot.press("escape")
        await user.is_idle()
        await user.until(lambda: re.search("ctx [1-9]", user.status), "measured")


async def test_escape_stops_the_reply_and_not_the_app(chats: Chats, open_app: OpenApp) -> None:
    gate = Gate()
    engine = FakeEngine(["One, two, ", gate, "three"], ["Four."])
    async with open_app(engine) as user:
        await user.says("Count")
        await user.sees("One, two,")
        await user.pilot.press("escape")
        await user.sees("Stopped.")
        await user.is_idle()
        assert "three" not in user.screen
        await user.says("More")
        await user.sees("Four.")
    replies = saved(chats)[1::2]
    assert [m.content for m in replies] == ["One, two, ", "Four."]
    assert [m.finish_reason for m in replies] == ["cancelled", "stop"]


async def test_thinking_stays_folded_until_it_is_opened(open_app: OpenApp) -> None:
    thought = Chunk(text="The user greets me.", part="thinking")
    async with open_app(FakeEngine([thought, "Hello!"])) as user:
        await user.says("Hi")
        await user.sees("Thought for")
        await user.sees("Hello!")
        await user.is_idle()
        assert "greets" not in user.screen
        await user.pilot.click(Thinking)
        await user.sees("The user greets me.")


@pytest.mark.parametrize("size", [(80, 24), (40, 12)])
async def test_a_key_ends_the_thinking_and_the_answer_comes(
    chats: Chats, open_app: OpenApp, size: tuple[int, int]
) -> None:
    def thought(text: str) -> Chunk:
        return Chunk(text=text, part="thinking")

    script: list[Step] = [thought("One."), Gate(), thought("Two."), "Yes.", Gate()]
    async with open_app(FakeEngine(script), size=size) as user:
        assert "Answer now" not in user.screen
        await user.says("Is it?")
        await user.sees("Answer now")
        await user.pilot.press("f7")
        await user.sees("Yes.")
        await user.until(lambda: "Answer now" not in user.screen, "no key")
        await user.pilot.press("escape")
        await user.sees(", cut short")
        await user.is_idle()
        await user.says("/answer ")
        await user.sees("/answer has")
        await user.says("/new ")
        await user.until(lambda: len(user.chat.conversations) == 2, "a tab")
        assert "/new has" not in user.screen
    (reply,) = saved(chats)[1:]
    assert (reply.thinking, reply.content) == ("One.", "Yes.")
    async with open_app(
        FakeEngine(), earlier=chats.load(chats.headings()[0].id), size=size
    ) as user:
        await user.sees("Thought, cut short")


async def test_a_server_that_thinks_is_not_told_to_answer(chats: Chats, open_app: OpenApp) -> None:
    script: list[Step] = [Chunk(text="One.", part="thinking"), Gate(), "Yes."]
    async with open_app(FakeEngine(script), model="http://127.0.0.1:9/v1#m") as user:
        await user.says("Is it?")
        await user.sees("Thinking …")
        await user.pilot.press("f7")
        assert "Answer now" not in user.screen
        await user.pilot.press("escape")
        await user.sees("Stopped.")


async def test_how_long_a_model_thinks_is_a_setting(open_app: OpenApp) -> None:
    engine = FakeEngine()
    async with open_app(engine, thinking=300) as user:
        for change in ("", "off", "on", "12"):
            if change:
                await user.says(f"/set thinking {change}")
                await user.sees("Saved thinking.")
            await user.says("Hi")
            await user.until(lambda: not user.chat.conversation.replying, "the end")
            await user.is_idle()
        await user.says("/set thinking much")
        await user.sees("thinking must be one of")
    asked = [
        (one.thinking, one.thinking_tokens)
        for one in engine.requests
        if isinstance(one, Generate) and not isinstance(one, Aside)
    ]
    assert asked == [(True, 300), (False, None), (True, None), (True, 12)]


async def test_a_notice_of_the_engine_stands_before_the_reply(open_app: OpenApp) -> None:
    engine = FakeEngine([Notice(text="Two messages were left out."), "Yes."])
    async with open_app(engine) as user:
        await user.says("Hi")
        await user.sees("Yes.")
        await user.sees("Two messages were left out.")
        assert user.screen.index("left out") < user.screen.index("Yes.")


async def test_the_status_tells_how_far_a_long_prompt_is_read(open_app: OpenApp) -> None:
    gate = Gate()
    engine = FakeEngine([PromptProgress(done=512, total=2048), gate, "Yes."])
    async with open_app(engine) as user:
        await user.says("Hi")
        await user.sees("reading 25%")
        gate.open()
        await user.sees("Yes.")


async def test_when_the_engine_dies_the_reply_is_kept_and_the_next_one_works(
    chats: Chats, open_app: OpenApp
) -> None:
    engine = FakeEngine(["Half a ", EngineDied("The engine stopped unexpectedly.")], ["Whole."])
    async with open_app(engine) as user:
        await user.says("Hi")
        await user.sees("The engine stopped unexpectedly.")
        await user.sees("Half a")
        await user.sees("Unfinished.")
        await user.says("Again")
        await user.sees("Whole.")
    replies = saved(chats)[1::2]
    assert [m.content for m in replies] == ["Half a ", "Whole."]
    assert [m.finish_reason for m in replies] == [None, "stop"]


async def test_a_conversation_is_resumed_after_a_restart(chats: Chats, open_app: OpenApp) -> None:
    async with open_app(FakeEngine(["Blue."]), system="Be kind.") as user:
        await user.says("Colour")
        await user.sees("Blue.")
        await user.is_idle()
    engine = FakeEngine(["Green."])
    earlier = chats.load(chats.headings()[0].id)
    async with open_app(engine, earlier=earlier, system="Be kind.") as user:
        await user.sees("Blue.")
        await user.says("Another")
        await user.sees("Green.")
        await user.is_idle()
    request = engine.requests[-1]
    assert isinstance(request, Generate)
    assert request.turns == (
        Turn("system", "Be kind."),
        Turn("user", "Colour"),
        Turn("assistant", "Blue."),
        Turn("user", "Another"),
    )
    assert len(chats.headings()) == 1


async def test_quitting_in_mid_reply_keeps_what_has_come(chats: Chats, open_app: OpenApp) -> None:
    engine = FakeEngine(["Half ", Gate()])
    async with open_app(engine) as user:
        await user.says("Hi")
        await user.sees("Half")
        await user.pilot.press("ctrl+q")
    assert engine.closed
    assert saved(chats)[-1].content == "Half "


async def test_copying_selected_text_does_not_quit(open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        await user.pilot.press("w", "o", "r", "d", "f7", "ctrl+c")
        assert user.pilot.app.clipboard == "word"
        assert user.pilot.app.is_running


async def test_what_is_sent_while_a_reply_runs_waits_for_its_end(
    chats: Chats, open_app: OpenApp
) -> None:
    gate = Gate()
    async with open_app(FakeEngine(["First.", gate], ["Second."], ["Third.", Gate()])) as user:
        await user.says("One")
        await user.sees("First.")
        await user.says("Two")
        await user.says("Three")
        await user.says("Four")
        await user.sees("Queued: Four")
        await user.pilot.press("up")
        assert user.prompt.text == "Four"
        await user.until(lambda: "Queued: Four" not in user.screen, "taken back")
        gate.open()
        await user.sees("Third.")
        await user.says("!")
        await user.sees("Queued: Four!")
        await user.pilot.press("escape")  # stops the reply, and so what waits for it
        await user.until(lambda: user.prompt.text == "Four!", "given back")
    assert [m.content for m in saved(chats) if m.role == "user"] == ["One", "Two", "Three"]


async def test_a_prompt_may_have_several_lines(chats: Chats, open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        await user.pilot.press("a", "shift+enter", "b", "ctrl+j", "c", "enter")
        await user.sees("Hello.")
    assert saved(chats)[0].content == "a\nb\nc"


async def test_what_is_pasted_may_have_any_line_ends_and_no_escape_sequences(
    chats: Chats, open_app: OpenApp
) -> None:
    async with open_app(FakeEngine()) as user:
        user.pilot.app.post_message(events.Paste("one\r\ntwo\rthree\n\x1b[2Jfour"))
        await user.sees("four")
        await user.pilot.press("enter")
        await user.sees("Hello.")
    assert saved(chats)[0].content == "one\ntwo\nthree\n[2Jfour"


async def test_a_burst_of_keys_is_taken_in_its_order(chats: Chats, open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        for key in ("a", "b", "backspace", "ctrl+j", "c", "enter", "d"):
            user.pilot.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await user.sees("Hello.")
        assert user.prompt.text == "d"
    assert saved(chats)[0].content == "a\nc"


async def test_a_message_may_be_sent_while_the_model_loads(chats: Chats, open_app: OpenApp) -> None:
    gate = Gate()
    async with open_app(FakeEngine(["Ready."], loads=[[0.25, gate]])) as user:
        await user.says("Hi")
        await user.sees("loading 25%")
        await user.until(lambda: [m.content for m in saved(chats)][:1] == ["Hi"], "stored")
        gate.open()
        await user.sees("Ready.")


async def test_a_message_may_be_sent_before_anything_else_happens(open_app: OpenApp) -> None:
    async with open_app(FakeEngine(["Ready."])) as user:
        user.prompt.text = "Hi"
        await user.prompt.action_send()
        await user.sees("Ready.")


async def test_a_model_that_cannot_be_loaded_is_explained(open_app: OpenApp) -> None:
    engine = FakeEngine(loads=[[ModelFileError("The file is truncated.")]])
    async with open_app(engine) as user:
        await user.sees("The file is truncated.")
        assert "no model" in user.status


async def test_a_new_conversation_leaves_the_old_one_to_be_found_again(
    chats: Chats, open_app: OpenApp
) -> None:
    engine = FakeEngine(["Half ", Gate()], ["Other."])
    async with open_app(engine) as user:
        await user.says("One")
        await user.sees("Half")
        await user.pilot.press("escape")
        await user.is_idle()
        await user.pilot.press("ctrl+n")
        await user.sees("Nothing you write leaves it")
        await user.says("Two")
        await user.sees("Other.")
        await user.is_idle()
        assert len(chats.headings()) == 2
        await user.pilot.press("ctrl+r", "down", "enter")
        await user.sees("Half")
        assert "Stopped." in user.screen
        assert "Other." not in user.screen


HOSTILE = (
    "\x1b]0;owned\x07 \x1b[31mred\x9b32m \x1b]52;c;aGk=\x1b\\",
    "&#27;[31m <http://a.example/%1b[31m> http://a.example/%9b31m",
    "```\n\x1b[2J\r\x08\n```\n| \x1b[1m | b |\n| --- | --- |\n| \x7f | [red]x[/red] |",
)


async def test_no_control_character_of_a_model_reaches_the_terminal(open_app: OpenApp) -> None:
    thought = Chunk(text="\x1b[31mthought", part="thinking")
    script: list[Step] = [thought, *HOSTILE, Notice(text="\x1b[5mnotice"), "end"]
    async with open_app(FakeEngine(script), size=(100, 50)) as user:
        user.prompt.text = "\x1b[2Jhello"
        await user.pilot.press("enter")
        await user.sees("end")
        await user.is_idle()
        await user.pilot.click(Thinking)
        await user.sees("thought")
        assert "[red]x[/red]" in user.screen
        assert not {c for c in user.screen if ord(c) < 32 or 127 <= ord(c) < 160} - {"\n"}
        await user.pilot.press("ctrl+r")
        await user.until(lambda: bool(user.pilot.app.screen.query(OptionList)), "list")
        assert "\x1b" not in user.screen


async def test_commands_are_in_the_palette(open_app: OpenApp) -> None:
    async with open_app(FakeEngine(["Hello."])) as user:
        await user.says("Hi")
        await user.sees("Hello.")
        await user.pilot.press("ctrl+p", *"own", "space", *"tab")
        await user.sees("Start a new chat")
        await user.sees("/new")
        await user.pilot.press("down", "enter")
        await user.sees("Nothing you write leaves it")


def test_every_key_can_be_remapped() -> None:
    for cls in (OndeviceApp, ChatScreen, ChatsPanel, ModelsScreen, PromptInput):
        for binding in cls.__dict__["BINDINGS"]:
            assert isinstance(binding, Binding)
            assert binding.id, f"{cls.__name__}: {binding.key}"


async def test_a_notice_is_seen_to_its_last_word(open_app: OpenApp) -> None:
    async with open_app(FakeEngine(), size=(40, 24)) as user:
        app = user.pilot.app
        for length in range(15, 20):  # the last word just fits into the line, or just does not
            app.notify("x " * length + f"END{length}")
            await user.sees(f"END{length}")


async def test_what_the_app_says_covers_neither_the_prompt_nor_a_new_chat(
    open_app: OpenApp,
) -> None:
    async with open_app(FakeEngine()) as user:
        await user.says("/pin")
        await user.sees("This chat is empty")
        (toast,) = user.pilot.app.screen.query("Toast")
        assert not toast.region.overlaps(user.prompt.region)
        await user.says("/remember I live in Lisbon.")
        await user.sees("Remembered: I live in Lisbon.")
        await user.sees("Nothing you write leaves it")
        assert user.chat.conversation.max_scroll_y == 0


async def test_of_what_the_app_says_the_newest_is_shown_and_repeats_once(open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        app = user.pilot.app
        for _ in range(3):
            await user.says("/pin")
        await user.sees("This chat is empty")
        await user.says("/nonsense")
        await user.sees("There is no command /nonsense.")
        await user.until(lambda: len(app.screen.query("Toast")) == 1, "one of them")
        assert "This chat is empty" not in user.screen
