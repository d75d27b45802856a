"""Two windows with one chat: each shows what it writes to its end, and says what became of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import long_chats
import pytest
from terminal_user import User, at_the_terminal

from ondevice.chats import Chats
from ondevice.testing import FakeEngine, Gate, Step


@pytest.fixture
def chat(chats: Chats) -> int:
    return long_chats.write(chats, ["Count.", "First."])


@asynccontextmanager
async def two_windows(
    chats: Chats, elsewhere: Chats, chat: int, one: list[Step], other: list[Step]
) -> AsyncIterator[tuple[User, User]]:
    model = chats.database.path.parent / "Tiny-1B.gguf"
    model.touch()
    async with AsyncExitStack() as stack:
        users = [
            await stack.enter_async_context(
                at_the_terminal(FakeEngine(script), store, model, store.load(chat))
            )
            for script, store in ((one, chats), (other, elsewhere))
        ]
        yield users[0], users[1]


def everything(chats: Chats, chat: int) -> list[str]:
    with chats.database.read() as connection:
        rows = connection.execute(
            "SELECT content FROM message WHERE conversation_id = ? ORDER BY id", (chat,)
        )
        return [text for (text,) in rows]


async def test_a_reply_continued_in_two_windows_becomes_two(
    chats: Chats, elsewhere: Chats, chat: int
) -> None:
    begins, ends = Gate(), Gate()
    one: list[Step] = [begins, " A one,", " A two."]
    async with two_windows(chats, elsewhere, chat, one, [" B one,", ends, " B two."]) as (a, b):
        await a.says("/continue")
        await a.until(lambda: a.chat.conversation._streaming, "streaming")
        await b.says("/continue")
        await b.until(lambda: "First. B one," in everything(chats, chat), "saved")
        begins.open()
        await a.is_idle()
        await a.sees("First. A one, A two.")
        await a.sees("Another window continued this reply as well. Both versions are kept.")
        await a.sees("‹ 2/2 ›")
        await b.sees("First. B one,")  # it is still being written there
        ends.open()
        await b.is_idle()
        await b.sees("What was written here is kept: the arrows ‹ 2/2 › lead to it.")
        await b.sees("First. A one, A two.")
        await b.pilot.press("shift+tab", "left")
        await b.sees("First. B one, B two.")
    assert everything(chats, chat) == ["Count.", "First. B one, B two.", "First. A one, A two."]


async def test_a_reply_is_shown_to_its_end_whatever_version_another_window_comes_to(
    chats: Chats, elsewhere: Chats, chat: int
) -> None:
    more, ends = Gate(), Gate()
    one: list[Step] = ["A one,", more, " A two.", ends]
    async with two_windows(chats, elsewhere, chat, one, ["B's reply."]) as (a, b):
        await a.says("/again")
        await b.sees("A one,")
        await b.says("/again")
        await b.sees("B's reply.")
        await b.is_idle()
        await a.until(lambda: a.chat.conversation._is_aside, "known")
        more.open()
        await a.sees("A one, A two.")
        assert "B's reply." not in a.screen
        ends.open()
        await a.is_idle()
        await a.sees("B's reply.")
        await a.sees("What was written here is kept: the arrows ‹ 3/3 › lead to it.")
        await a.pilot.press("shift+tab", "left")
        await a.sees("A one, A two.")


async def test_what_waits_to_be_said_follows_the_reply_that_its_window_shows(
    chats: Chats, elsewhere: Chats, chat: int
) -> None:
    ends = Gate()
    async with two_windows(chats, elsewhere, chat, ["A's.", ends], ["B's reply."]) as (a, b):
        await a.says("/again")
        await a.sees("A's.")
        await a.says("And then?")
        await b.says("/again")
        await b.sees("B's reply.")
        await b.is_idle()
        await a.until(lambda: a.chat.conversation._is_aside, "known")
        ends.open()
        await a.until(lambda: "And then?" in everything(chats, chat), "said")
        await a.is_idle()
        said = [message.content for message in chats.load(chat).messages]
        assert said[:3] == ["Count.", "A's.", "And then?"]
