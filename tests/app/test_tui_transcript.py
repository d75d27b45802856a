"""What of a chat is on the screen: a run of what the store shows, without gaps or doubles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import long_chats
import pytest
from terminal_user import OpenApp, User, at_the_terminal
from textual import events

from ondevice.chats import Chats, reply
from ondevice.errors import EngineDied
from ondevice.messages import Load, Sampling
from ondevice.store import Database
from ondevice.testing import FakeEngine, Gate
from tui.widgets.conversation import Conversation
from tui.widgets.message import MessageView
from tui.widgets.notice import NoticeText
from tui.widgets.prompt import PromptInput
from tui.widgets.user_message import UserMessage


def texts(count: int, lines: Callable[[int], int] = lambda _: 2) -> list[str]:
    return ["\n\n".join(f"Line {n}.{i} of it" for i in range(lines(n))) for n in range(count)]


def chat_of(user: User) -> Conversation:
    return user.chat.conversation


def selected(conversation: Conversation) -> MessageView:
    assert conversation.in_focus
    return conversation.in_focus


async def rests(user: User) -> Conversation:
    await user.pilot.pause()
    await user.until(lambda: chat_of(user).at_rest, "at rest")
    return chat_of(user)


def mounted(conversation: Conversation) -> list[int]:
    """The ids of the messages that are widgets, from top to bottom."""
    views = [v for v in conversation.query_children(MessageView) if v.display and v.is_attached]
    return [view.id_in_store or 0 for view in views]


def offers(user: User, key: str, not_key: str) -> bool:
    """Whether the line of keys has the one and not the other."""
    footer = user.screen.splitlines()[-1]
    return key in footer and not_key not in footer


def is_run(part: list[int], whole: list[int]) -> bool:
    return bool(part) and part[0] in whole and whole[whole.index(part[0]) :][: len(part)] == part


def top_message(conversation: Conversation) -> int | None:
    """The id of the message at the top of the view."""
    top = conversation.content_region.y
    views = [v for v in conversation.views if v.region.bottom > top]
    return views[0].id_in_store if views else None


async def test_versions_are_switched_in_a_chat_taller_than_the_view(
    chats: Chats, open_app: OpenApp
) -> None:
    chat = long_chats.write(chats, texts(2, lambda n: 30 if n else 1))
    async with open_app(FakeEngine(["Two."], ["Three."]), earlier=chats.load(chat)) as user:
        await user.says("Second")
        await user.is_idle()
        await user.says("/edit")
        await user.sees("Editing")
        user.prompt.text = ""
        await user.says("Edited")
        await user.sees("Three.")
        await user.is_idle()
        await user.pilot.press("ctrl+up", "ctrl+up")
        for key in ("left", "right", "left"):
            await user.pilot.press(key)
            conversation = await rests(user)
            shown = [message.id for message in chats.load(chat).messages]
            assert mounted(conversation) == shown[-len(mounted(conversation)) :]
            message = selected(conversation).message
            assert message
            assert message.content == ("Edited" if key == "right" else "Second")
            there, gone = ("Later", "Earlier") if key == "left" else ("Earlier", "Later")
            await user.until(partial(offers, user, there, gone), there)
        await user.sees("‹ 1/2 ›")
        await user.pilot.click(selected(conversation)._versions, offset=(4, 0))
        await user.sees("‹ 2/2 ›")
        await user.sees("Three.")
        await user.pilot.click(selected(conversation)._versions, offset=(4, 0))
        await user.sees("‹ 1/2 ›")


@pytest.mark.parametrize("size", [(80, 24), (40, 12)])
async def test_a_jump_leads_to_the_message_however_far(
    chats: Chats, open_app: OpenApp, size: tuple[int, int]
) -> None:
    chat = long_chats.write(chats, texts(2000, lambda n: 60 if n % 50 == 7 else 1 + n % 3))
    ids = [message.id for message in chats.load(chat).messages]
    random = Random(str(size))
    places = [0, 1007, 1006, 1999, random.randrange(1900)]
    async with open_app(FakeEngine(), earlier=chats.load(chat), size=size) as user:
        for place in places:
            if random.random() < 0.5:  # another one before it is there
                await user.chat.go_to(chat, random.choice(ids))
            await user.chat.go_to(chat, ids[place])
            conversation = await rests(user)
            assert is_run(mounted(conversation), ids)
            assert conversation.in_focus and conversation.in_focus.id_in_store == ids[place]
            last = conversation.scroll_y >= conversation.max_scroll_y
            assert top_message(conversation) == ids[place] or (last and place > 1980), place


async def test_another_window_in_the_same_chat(
    chats: Chats, elsewhere: Chats, open_app: OpenApp
) -> None:
    gate = Gate()
    chat = long_chats.write(chats, texts(4))
    engine = FakeEngine(["One, ", gate, "two."])
    async with open_app(engine, earlier=chats.load(chat)) as user:
        await user.pilot.press("d", "r", "a", "f", "t")
        long_chats.add(elsewhere, chat, ["From elsewhere", "Its reply"])
        await user.sees("Its reply")
        assert user.prompt.text == "draft"
        user.prompt.text = ""
        await user.says("From here")
        await user.sees("One,")
        long_chats.add(elsewhere, chat, ["Meanwhile", "Its other reply"])
        await user.sees("Its other reply")
        gate.open()
        await user.is_idle()
        conversation = await rests(user)
        shown = elsewhere.load(chat).messages
        assert [m.content for m in shown[-6:]] == [
            "From elsewhere",
            "Its reply",
            "From here",
            "One, two.",
            "Meanwhile",
            "Its other reply",
        ]
        assert is_run(mounted(conversation), [m.id for m in shown])
        assert mounted(conversation)[-1] == shown[-1].id
        assert user.screen.count("One, two.") == 1

        elsewhere.delete(chat)
        await user.pilot.press("m", "y")
        await user.sees("deleted in another window")
        assert user.prompt.text == "my"
        assert "From here" not in user.screen
        await user.says(" new one")
        await user.is_idle()
        assert chats.load(chats.headings()[0].id).messages[0].content == "my new one"


async def test_a_reply_that_another_window_writes_is_shown_to_its_end_whatever_is_said_after_it(
    chats: Chats, elsewhere: Chats, open_app: OpenApp
) -> None:
    chat = long_chats.write(chats, texts(3))
    engine = FakeEngine(["It begins, ", "and it ends."])
    engine.load(Load(path="other.gguf"))
    async with open_app(FakeEngine(["Mine."]), earlier=chats.load(chat)) as user:
        events = reply(elsewhere, engine, chat, Sampling())
        next(events)
        await user.until(lambda: len(user.chat.conversation.messages) == 4, "a reply")
        await user.says("Meanwhile")
        await user.sees("Mine.")
        await user.is_idle()
        list(events)
        await user.sees("and it ends.")


async def test_a_chat_deleted_elsewhere_while_it_replies_keeps_what_is_typed(
    chats: Chats, elsewhere: Chats, open_app: OpenApp
) -> None:
    gate = Gate()
    async with open_app(FakeEngine(["One, ", gate, "two."])) as user:
        await user.says("Hi")
        await user.sees("One,")
        elsewhere.delete(chats.headings()[0].id)
        await user.pilot.press("n", "e", "x", "t")
        await user.sees("deleted in another window")
        await user.is_idle()
        assert user.prompt.text == "next"
        await user.until(lambda: "ctx 0/" in user.status, "nothing is in the context")


WORDY = "\n\n".join(["Some words."] * 30 + ["Here is the **needle** at last."] + ["More."] * 30)


async def test_find_goes_to_the_word_marks_it_and_goes_on(chats: Chats, open_app: OpenApp) -> None:
    chat = long_chats.write(chats, ["Hay", WORDY, *texts(200), "A needle?", "Needles, needles."])
    async with open_app(FakeEngine(), earlier=chats.load(chat)) as user:
        ids = [message.id for message in chats.load(chat).messages]

        def here() -> tuple[int | None, int] | None:
            conversation = chat_of(user)
            at = conversation.marks and conversation.marks.here
            return (selected(conversation).id_in_store, at.start) if at else None

        await user.pilot.press("ctrl+f", *"needle")
        await user.sees("needle** at")  # in the list
        await user.pilot.press("enter")
        await user.until(lambda: here() == (ids[1], 12), "the word")
        await rests(user)
        assert "Here is the needle at last" in user.screen
        assert "Next match" in user.screen.splitlines()[-1]
        places = [(ids[-2], 2), (ids[-1], 0), (ids[-1], 9), (ids[1], 12)]
        for key, place in [("n", p) for p in places] + [("N", p) for p in reversed(places[:3])]:
            await user.pilot.press(key)
            await user.until(partial(lambda place: here() == place, place), f"{key} to {place}")
            await rests(user)
        assert "A needle?" in user.screen
        for key in "nnN":  # as a key that is held sends them
            user.pilot.app.post_message(events.Key(key, key))
        await user.until(lambda: here() == places[1], "one match on")
        await rests(user)

        user.chat._letter_at = 0.0  # a second later
        await user.pilot.press(*"regarding the picture".replace(" ", "_").split("_")[0])
        await user.until(lambda: user.prompt.text == "regarding", "the whole word")
        assert not chat_of(user).finding
        user.prompt.text = ""

        await user.pilot.press("ctrl+f", *"needle", "enter")
        await user.until(lambda: here() is not None, "the word again")
        for key in "no":  # n is a key there, but also the beginning of a word
            user.pilot.app.post_message(events.Key(key, key))
        await user.until(lambda: user.prompt.text == "no", "a word with n")
        user.prompt.text = ""
        await user.pilot.press("ctrl+r", *"needle", "enter")
        await user.until(lambda: here() is not None, "from the list of chats")
        await user.pilot.press("escape")
        assert user.prompt.has_focus
        assert not chat_of(user).finding
        await user.pilot.press(*"recgqn")
        assert user.prompt.text == "recgqn"


async def test_the_scrollbar_is_that_of_the_chat_and_keys_lead_to_its_ends(
    chats: Chats, open_app: OpenApp
) -> None:
    chat = long_chats.write(chats, texts(1000))
    async with open_app(FakeEngine(), earlier=chats.load(chat)) as user:
        ids = [message.id for message in chats.load(chat).messages]
        conversation = await rests(user)
        bar = conversation.vertical_scrollbar
        assert bar.window_virtual_size > 2000
        assert bar.position == bar.window_virtual_size - bar.window_size

        def share() -> float:
            return bar.position / (bar.window_virtual_size - bar.window_size)

        await user.pilot.press("ctrl+home")
        await rests(user)
        assert top_message(conversation) == ids[0]
        assert share() == 0
        for _ in range(3):
            await user.pilot.press("pagedown")
        await rests(user)
        assert 0 < share() < 0.1

        top = conversation.content_region.y
        x = conversation.region.right - 1
        await user.pilot.mouse_down(offset=(x, top))
        await user.pilot.hover(offset=(x, top + conversation.size.height // 2))
        await rests(user)
        await user.pilot.mouse_up(offset=(x, top + conversation.size.height // 2))
        await rests(user)
        assert 0.4 < share() < 0.6
        assert 400 < ids.index(top_message(conversation) or 0) < 600
        assert is_run(mounted(conversation), ids)

        await user.pilot.press("ctrl+end")
        await rests(user)
        assert mounted(conversation)[-1] == ids[-1]
        assert share() == 1


async def test_an_error_does_not_stay_below_a_reply_that_goes_on(open_app: OpenApp) -> None:
    async with open_app(FakeEngine(["One, ", EngineDied("It died.")], ["two."])) as user:
        await user.says("Count")
        await user.sees("It died.")
        await user.is_idle()
        await user.says("/continue")
        await user.sees("One, two.")
        await user.is_idle()
        await rests(user)
        assert "It died." not in user.screen
        assert user.screen.count("▌  Count") == 1


async def test_ctrl_up_in_an_empty_chat_does_nothing(open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        await user.pilot.press("ctrl+up", "ctrl+down", "ctrl+home", "ctrl+end", "left")
        assert user.prompt.has_focus


# ------------------------------------------------------------------ whatever is done


@pytest.mark.random
async def test_the_screen_shows_a_run_of_what_the_store_shows(
    tmp_path: Path, rounds: Callable[[int], Iterator[Random]]
) -> None:
    model = tmp_path / "Tiny-1B.gguf"
    model.touch()
    for number, random in enumerate(rounds(1)):
        path = tmp_path / f"{number}.db"
        chats, elsewhere = Chats(Database(path)), Chats(Database(path))
        engine = FakeEngine(*(some_reply(random) for _ in range(20)))
        chat = long_chats.write(chats, some_texts(random, random.choice([2, 8, 40, 300])))
        size = random.choice([(80, 24), (40, 12), (120, 40)])
        async with at_the_terminal(engine, chats, model, chats.load(chat), size=size) as user:
            for _ in range(12):
                await something(random, user, elsewhere, chat)
                await follows(user, elsewhere, chat)
        for one in (chats, elsewhere):
            one.database.close()


def some_texts(random: Random, count: int) -> list[str]:
    return texts(count, lambda _: random.choice([1, 1, 2, 3, 5, 40]))


def some_reply(random: Random) -> list[str | Gate]:
    pieces: list[str | Gate] = [*some_texts(random, random.randint(1, 6))]
    if random.random() < 0.3:
        pieces.insert(random.randint(0, len(pieces)), Gate())
    return pieces


WAYS = [
    *("say", "edit", "again", "stop", "switch", "switch", "jump", "jump", "scroll", "scroll"),
    *("wheel", "ends", "resize", "point", "point", "other_says", "other_answers", "other_switches"),
]


async def something(random: Random, user: User, elsewhere: Chats, chat: int) -> None:
    """Do something at random, here or in the other window."""
    screen, conversation = user.chat, chat_of(user)
    messages = elsewhere.load(chat).messages
    one = random.choice(messages)
    what = random.choice(WAYS)
    print(what)  # noqa: T201 - pytest shows it with a failure
    if what in ("say", "edit", "again") and not conversation.replying:
        if what == "again":
            conversation.regenerate(one)
        else:
            conversation.ask("Something", instead_of=one.id if what == "edit" else None)
        await asyncio.sleep(random.choice([0, 0.05, 0.3]))
    elif what == "switch" and not conversation.replying:
        forks = [m for m in messages if len(m.versions) > 1]
        if forks:
            await conversation.show_version(random.choice(random.choice(forks).versions))
    elif what == "jump":
        for _ in range(random.randint(1, 3)):
            await screen.go_to(chat, random.choice(messages).id)
            await asyncio.sleep(random.choice([0, 0, 0.02]))
    elif what in ("scroll", "wheel"):
        key = random.choice(["pageup", "pagedown"])
        for _ in range(random.randint(1, 8)):
            if what == "scroll":
                user.pilot.app.post_message(events.Key(key, None))
            else:
                conversation.scroll_relative(y=random.choice([-3, 3]), animate=False)
            await asyncio.sleep(random.choice([0, 0.01]))
    elif what == "ends":
        user.pilot.app.post_message(events.Key(random.choice(["ctrl+home", "ctrl+end"]), None))
    elif what == "resize":
        await user.pilot.resize_terminal(random.randint(40, 120), random.randint(12, 40))
    elif what == "point":
        for key in random.choices(["ctrl+up", "ctrl+up", "ctrl+down", "left", "right"], k=3):
            user.pilot.app.post_message(events.Key(key, None))
    elif what == "stop":
        conversation.stop()
    elif what == "other_says":
        long_chats.add(elsewhere, chat, some_texts(random, random.randint(1, 4)))
    elif what == "other_answers":
        long_chats.add(elsewhere, chat, some_texts(random, 2), parent_id=one.id)
    elif what == "other_switches":
        elsewhere.show(random.choice(random.choice(messages).versions))


async def follows(user: User, elsewhere: Chats, chat: int) -> None:
    """Once all is at rest, what is on the screen is what the store shows."""
    conversation = chat_of(user)
    await user.pilot.pause()
    conversation._check_store()

    def as_in_store() -> bool:
        shown = [message.id for message in elsewhere.load(chat).messages]
        if (here := conversation._under_way) and here not in shown:
            shown = [message.id for message in elsewhere.load(chat, until=here).messages]
        ids = mounted(conversation)
        if conversation.replying and ids and ids[-1] not in shown:
            ids = ids[:-1]  # the reply, of which nothing is kept yet; there may be another one
            shown = shown[: shown.index(ids[-1]) + 1] if ids and ids[-1] in shown else []
        return conversation.at_rest and (is_run(ids, shown) or (not ids and conversation.replying))

    def displayed() -> list[MessageView]:
        views = conversation.query_children(MessageView)
        return [view for view in views if view.display and view.is_attached]

    def in_order() -> bool:
        tops = [view.region.y for view in displayed()]
        return tops == sorted(tops)

    await user.until(lambda: as_in_store() and in_order(), "the messages of the store, drawn")
    views = displayed()
    view = conversation.content_region
    if conversation._first > 0:
        assert views[0].region.y <= view.y
    if conversation._last < len(conversation._shown):
        assert views[-1].region.bottom >= view.bottom - 1
    focused = user.pilot.app.focused
    assert isinstance(focused, PromptInput) or focused in views
    assert not any(
        notice.region.y and not notice.display for notice in conversation.query(NoticeText)
    )


async def test_a_note_stays_when_what_it_follows_was_never_stored(
    chats: Chats, open_app: OpenApp
) -> None:
    async with open_app(FakeEngine()) as user:
        chat = chat_of(user)
        view = UserMessage(text="Unsaid")
        chat.add_unsaved(view, None)
        await chat.equal()
        chat.note("This chat was deleted.")
        chat.release(view)
        await chat.equal()
        await user.sees("This chat was deleted.")
        assert "Unsaid" not in user.screen


async def test_of_two_looks_at_a_deleted_chat_one_says_so(chats: Chats, open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        await user.says("Hi")
        await user.is_idle()
        chats.delete(chats.headings()[0].id)
        chat = chat_of(user)
        chat.follow()
        while chat.id_in_store is not None:
            await asyncio.sleep(0)
        chat.follow()  # which ends the first one
        await user.sees("This chat was deleted")
