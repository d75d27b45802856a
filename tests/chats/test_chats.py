"""Conversations in the store: nothing that was said is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ondevice.chats import Attachment, ChatHit, Chats, reply
from ondevice.errors import (
    ContextError,
    EngineDied,
    OndeviceError,
    StoreError,
    StoreUnwritable,
    UsageError,
)
from ondevice.memory import _cubes
from ondevice.messages import Chunk, Event, Finished, Generate, Load, Sampling, Turn
from ondevice.store import Connection, Database, migrations
from ondevice.store._sqlite import connect
from ondevice.store.migrations import m001_conversations, m002_memory, m014_words_of_chats
from ondevice.testing import FakeEngine, Gate, Step


def ask(chats: Chats, engine: FakeEngine, chat: int, text: str) -> list[Event]:
    chats.say(chat, text)
    return list(reply(chats, engine, chat, Sampling()))


def turns_of(engine: FakeEngine) -> list[Turn]:
    """What the model was shown last."""
    request = engine.requests[-1]
    assert isinstance(request, Generate)
    return list(request.turns)


def engine_that_says(*script: Step) -> FakeEngine:
    engine = FakeEngine(script)
    engine.load(Load(path="fake.gguf"))
    return engine


def test_an_exchange_is_kept_whole(chats: Chats, tmp_path: Path) -> None:
    engine = engine_that_says(Chunk(text="A greeting.", part="thinking"), "Hello ", "there.")
    chat = chats.create("Be kind.")
    events = ask(chats, engine, chat, "Hi!")
    again = Database(tmp_path / "store.db")
    conversation = Chats(again).load(chat)
    again.close()
    assert conversation.title == "Hi!"
    user, assistant = conversation.messages
    assert (user.role, user.content) == ("user", "Hi!")
    assert (assistant.role, assistant.content) == ("assistant", "Hello there.")
    assert assistant.thinking == "A greeting."
    assert assistant.model == "fake"
    assert assistant.finish_reason == "stop"
    assert isinstance(events[-1], Finished)
    assert assistant.statistics == events[-1].statistics


def test_the_model_sees_the_conversation_so_far_without_its_thinking(chats: Chats) -> None:
    engine = engine_that_says(Chunk(text="Hm.", part="thinking"), "Hello.")
    chat = chats.create("Be kind.")
    for text in ("Hi!", "Again?"):
        ask(chats, engine, chat, text)
    assert turns_of(engine) == [
        Turn("system", "Be kind."),
        Turn("user", "Hi!"),
        Turn("assistant", "Hello."),
        Turn("user", "Again?"),
    ]


def test_the_users_words_are_on_disk_at_once(chats: Chats, tmp_path: Path) -> None:
    chat = chats.create()
    chats.say(chat, "Are you there?")
    other = Database(tmp_path / "store.db")
    (message,) = Chats(other).load(chat).messages
    other.close()
    assert message.content == "Are you there?"


def test_what_came_before_the_engine_died_is_kept_as_interrupted(chats: Chats) -> None:
    chat = chats.create()
    engine = engine_that_says("One, ", "two, ", EngineDied("It died."))
    with pytest.raises(EngineDied):
        ask(chats, engine, chat, "Count.")
    reply = chats.load(chat).messages[-1]
    assert reply.content == "One, two, "
    assert reply.finish_reason is None
    assert chats.load(chat).turns()[-1] == Turn("assistant", "One, two, ")


@pytest.mark.parametrize("ever_free", [True, False])
def test_a_reply_goes_on_while_another_program_keeps_the_store_to_itself(
    chats: Chats, tmp_path: Path, ever_free: bool
) -> None:
    chat = chats.create()
    chats.say(chat, "Count.")
    other = connect(tmp_path / "store.db", isolation_level=None)
    events: list[Event] = []
    with chats.database.read() as connection:
        connection.execute("PRAGMA busy_timeout=50")
    engine = engine_that_says("One, ", "two, ", "three.")

    def listen() -> None:
        for event in reply(chats, engine, chat, Sampling()):
            events.append(event)
            if len(events) == 1:
                other.execute("BEGIN IMMEDIATE")
                time.sleep(0.5)  # the next piece is to be saved as well
            elif len(events) == 3 and ever_free:
                other.execute("COMMIT")

    if ever_free:
        listen()
        assert chats.load(chat).messages[-1].content == "One, two, three."
        assert chats.load(chat).messages[-1].finish_reason == "stop"
    else:
        with pytest.raises(StoreUnwritable, match="could not be saved"):
            listen()
        assert chats.load(chat).messages[-1].content == "One, "
        other.execute("COMMIT")
        chats.say(chat, "Go on.")
        assert [m.content for m in chats.load(chat).messages[1:]] == [
            "One, two, three.",
            "Go on.",
        ]
    assert "".join(e.text for e in events if isinstance(e, Chunk)) == "One, two, three."
    assert isinstance(events[-1], Finished)
    other.close()


def test_a_reply_of_which_nothing_could_be_saved_comes_before_what_is_said_next(
    chats: Chats, tmp_path: Path
) -> None:
    chat = chats.create()
    question = chats.say(chat, "Count.").message_id
    other = connect(tmp_path / "store.db", isolation_level=None)
    with chats.database.read() as connection:
        connection.execute("PRAGMA busy_timeout=50")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnwritable, match="tried again"):
        list(reply(chats, engine_that_says("One."), chat, Sampling()))
    assert chats.load(chat).messages[-1].id == question
    other.execute("COMMIT")
    chats.say(chat, "Go on.", after=question)
    assert [m.content for m in chats.load(chat).messages] == ["Count.", "One.", "Go on."]
    assert not chats.unsaved
    other.close()


@pytest.mark.parametrize(
    "script",
    [[EngineDied("x")], [ContextError("x")], [Chunk(text="Hm", part="thinking"), EngineDied("x")]],
)
def test_a_question_that_met_an_error_is_not_in_the_prompts_that_follow(
    chats: Chats, script: list[Step]
) -> None:
    chat = chats.create()
    with pytest.raises(OndeviceError):
        ask(chats, engine_that_says(*script), chat, "Hello?")
    assert chats.load(chat).messages[0].unanswered
    engine = FakeEngine(["Yes."])
    engine.load(Load(path="fake.gguf"))
    ask(chats, engine, chat, "Anyone?")
    assert turns_of(engine) == [Turn("user", "Anyone?")]
    ask(chats, engine, chat, "Good.")
    assert turns_of(engine)[0] == Turn("user", "Anyone?")


def test_a_question_that_met_an_error_may_be_asked_again(chats: Chats) -> None:
    chat = chats.create()
    with pytest.raises(EngineDied):
        ask(chats, engine_that_says(EngineDied("x")), chat, "Hello?")
    engine = engine_that_says("Yes.")
    for _ in reply(chats, engine, chat, Sampling()):
        pass
    assert turns_of(engine) == [Turn("user", "Hello?")]
    assert not chats.load(chat).messages[0].unanswered
    ask(chats, engine, chat, "Good.")
    assert turns_of(engine)[0] == Turn("user", "Hello?")


def test_another_reply_that_meets_an_error_takes_nothing_away(chats: Chats) -> None:
    chat = chats.create()
    ask(chats, engine_that_says("Yes."), chat, "Hello?")
    first = chats.load(chat).messages[0].id
    with pytest.raises(EngineDied):
        for _ in reply(chats, engine_that_says(EngineDied("x")), chat, Sampling(), after=first):
            pass
    assert not chats.load(chat).messages[0].unanswered


def test_what_was_stopped_before_a_word_came_goes_on_in_the_next_message(chats: Chats) -> None:
    chat = chats.create()
    engine = FakeEngine([Gate()], ["Yes."])
    engine.load(Load(path="fake.gguf"))
    chats.say(chat, "Write a poem")
    events = reply(chats, engine, chat, Sampling())
    threading.Timer(0.05, engine.cancel).start()
    for _ in events:
        pass
    ask(chats, engine, chat, "about the sea")
    assert turns_of(engine) == [Turn("user", "Write a poem"), Turn("user", "about the sea")]


APP = """
import sys
from pathlib import Path
from ondevice.chats import Attachment, ChatHit, Chats, reply
from ondevice.testing import FakeEngine, Gate
from ondevice.messages import Load, Sampling
from ondevice.store import Connection, Database, migrations
from ondevice.store._sqlite import connect
from ondevice.store.migrations import m001_conversations, m002_memory, m014_words_of_chats

chats = Chats(Database(Path(sys.argv[1])))
engine = FakeEngine(["One, ", "two, ", Gate()])
engine.load(Load(path="fake.gguf"))
chat = chats.create()
chats.say(chat, "Count.")
for event in reply(chats, engine, chat, Sampling()):
    print(event, flush=True)
"""


def test_killed_in_mid_reply_the_app_loses_at_most_half_a_second(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    app = subprocess.Popen([sys.executable, "-c", APP, str(path)], stdout=subprocess.PIPE)
    assert app.stdout is not None
    app.stdout.readline()
    app.stdout.readline()
    app.kill()
    app.communicate()
    database = Database(path)
    chats = Chats(database)
    (heading,) = chats.headings()
    user, reply = chats.load(heading.id).messages
    database.close()
    assert user.content == "Count."
    assert reply.content.startswith("One, ")
    assert reply.finish_reason is None


def test_the_list_has_the_latest_conversation_first(chats: Chats) -> None:
    first, second = chats.create(), chats.create()
    chats.say(second, "A question\nof two lines, " + "long " * 30)
    chats.say(first, "The latest")
    headings = chats.headings()
    assert [heading.id for heading in headings] == [first, second]
    assert headings[0].title == "The latest"
    assert headings[1].title.startswith("A question of two lines, long")
    assert len(headings[1].title) <= 60
    assert headings[0].messages == 1


def test_pinned_conversations_come_first_and_archived_ones_apart(chats: Chats) -> None:
    first, second, third = (chats.create() for _ in range(3))
    chats.pin(first)
    chats.archive(second)
    chats.rename(third, "  My\nown title ")
    chats.say(third, "Not the title")
    assert [(h.id, h.pinned) for h in chats.headings()] == [(first, True), (third, False)]
    assert chats.headings()[1].title == "My own title"
    assert [h.id for h in chats.headings(archived=True)] == [second]


def test_a_title_has_one_line_and_an_end(chats: Chats) -> None:
    chat = chats.create()
    chats.rename(chat, "long words\n" * 100)
    (heading,) = chats.headings()
    assert heading.title.startswith("long words long words")
    assert len(heading.title) <= 200


def test_the_chat_used_last_is_that_whatever_is_pinned_and_whatever_clocks_say(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chats.used_last() is None
    first, second = chats.create(), chats.create()
    assert chats.used_last() == second
    chats.pin(first)
    chats.say(first, "Early")
    monkeypatch.setattr("ondevice.chats._chats._now", lambda: "2001-01-01T00:00:00+00:00")
    chats.say(second, "Late")
    assert chats.used_last() == second
    chats.archive(second)
    assert chats.used_last() == first


def contents(chats: Chats, chat: int) -> list[str]:
    return [message.content for message in chats.load(chat).messages]


def test_an_edited_message_begins_a_branch_and_the_old_one_can_be_shown_again(
    chats: Chats,
) -> None:
    engine = FakeEngine(["Paris."], ["Rome."], ["Two million."])
    engine.load(Load(path="fake.gguf"))
    chat = chats.create()
    ask(chats, engine, chat, "Capital of France?")
    old = chats.load(chat).messages[0]
    chats.say(chat, "Capital of Italy?", instead_of=old.id)
    list(reply(chats, engine, chat, Sampling()))
    ask(chats, engine, chat, "How many live there?")
    assert contents(chats, chat)[:2] == ["Capital of Italy?", "Rome."]
    assert turns_of(engine)[0] == Turn("user", "Capital of Italy?")
    new = chats.load(chat).messages[0]
    assert new.versions == (old.id, new.id)

    chats.show(old.id)
    assert contents(chats, chat) == ["Capital of France?", "Paris."]
    chats.show(new.id)
    assert contents(chats, chat)[-1] == "Two million."


def test_a_reply_can_be_had_again_and_the_first_one_stays(chats: Chats) -> None:
    engine = FakeEngine(["One."], ["Another."])
    engine.load(Load(path="fake.gguf"))
    chat = chats.create()
    ask(chats, engine, chat, "Say something.")
    question, first = chats.load(chat).messages
    list(reply(chats, engine, chat, Sampling(), after=question.id))
    second = chats.load(chat).messages[1]
    assert second.content == "Another."
    assert second.versions == (first.id, second.id)
    chats.show(first.id)
    assert contents(chats, chat) == ["Say something.", "One."]


def test_if_the_engine_dies_before_another_reply_begins_the_first_one_is_still_shown(
    chats: Chats,
) -> None:
    chat = chats.create()
    ask(chats, engine_that_says("One."), chat, "Say something.")
    (question, _) = chats.load(chat).messages
    with pytest.raises(EngineDied):
        list(
            reply(
                chats,
                engine_that_says(EngineDied("x")),
                chat,
                Sampling(),
                after=question.id,
            )
        )
    assert contents(chats, chat) == ["Say something.", "One."]


def test_a_reply_that_was_cut_short_goes_on_where_it_ended(chats: Chats) -> None:
    chat = chats.create()
    with pytest.raises(EngineDied):
        ask(chats, engine_that_says("One, ", "two", EngineDied("x")), chat, "Count.")
    cut = chats.load(chat).messages[-1]
    engine = engine_that_says(", three.")
    list(reply(chats, engine, chat, Sampling(), after=cut.id))
    assert turns_of(engine)[-1] == Turn("assistant", "One, two")
    (_, whole) = chats.load(chat).messages
    assert (whole.id, whole.content) == (cut.id, "One, two, three.")
    assert whole.finish_reason == "stop"


def test_attachments_are_quoted_in_a_fence_that_they_cannot_close(chats: Chats) -> None:
    chat = chats.create()
    file = Attachment("notes.md", "```py\nx = 1\n```\n")
    chats.say(chat, "Explain.", [file])
    (message,) = chats.load(chat).messages
    assert message.content == "Explain."
    assert message.attachments == (file,)
    (turn,) = chats.load(chat).turns()
    assert turn.content == "notes.md:\n````\n```py\nx = 1\n```\n````\n\nExplain."


def test_all_conversations_are_searched(chats: Chats) -> None:
    fox, dog = chats.create(), chats.create()
    ask(chats, engine_that_says("A fox jumped over it."), fox, "Where is the fence?")
    chats.say(dog, "The dog is lazy. " * 20 + "Did it see the <b>foxes</b>?")
    chats.rename(dog, "Animals")
    found = chats.search("fox")
    assert {hit.heading.id for hit in found} == {fox, dog}
    pieces = next(hit.excerpt for hit in found if hit.heading.id == dog)
    assert [text for text, matches in pieces if matches] == ["foxes"]
    assert [hit.heading.id for hit in chats.search("fenc")] == [fox]
    assert [hit.heading.id for hit in chats.search("anim")] == [dog]
    assert chats.search('"*(') == chats.search("") == []
    assert len(chats.search("fence OR fox", conversation_id=fox)) == 0
    (hit,) = chats.search("jump", conversation_id=fox)
    assert hit.message_id == chats.load(fox).messages[1].id


#: A text of some script, words to find it by, and words that are not in it.
SCRIPTS = [
    ("मेरे कुत्ते को गाजर पसंद है।", "कुत्ते", "कातना"),
    ("என் நாய் பெயர் மணி.", "நாய்", "நீயா"),
    ("昨天我们去了北京动物园看熊猫。", "动物园", "植物园"),
    ("昨天我们去了北京动物园看熊猫。", "熊猫 北", "熊猫 南"),
    ("東京タワーに行きました", "タワー", "スカイ"),
    ("내일 학교에서 만나자", "학교", "병원"),
    ("เมื่อวานฉันกินข้าวผัด", "ข้าว", "ก๋วย"),
    ("ខ្ញុំចង់ញ៉ាំបាយ", "បាយ", "ទឹក"),
    ("My laptop 充电 slowly", "laptop 充", "laptop 电充"),
    ("Une crêpe au cafe\u0301 noir", "café", "thé"),
]


@pytest.mark.parametrize(("said", "words", "others"), SCRIPTS)
def test_a_chat_is_found_by_words_of_any_script(
    chats: Chats, said: str, words: str, others: str
) -> None:
    chat = chats.create()
    chats.say(chat, "Hi")
    message = chats.say(chat, f"{said} " + "…" * 100).message_id
    for within in (None, chat):
        (hit,) = chats.search(words, conversation_id=within)
        assert hit.message_id == message
        assert any(matches for _, matches in hit.excerpt)
        assert chats.search(others, conversation_id=within) == []
    found = chats.matches(words, chat)
    assert found.message_ids == (message,)
    assert found.words or found.parts
    chats.rename(chat, "МОЙ ЧАТ")
    assert [hit.heading.id for hit in chats.search("мой")] == [chat]


@pytest.mark.parametrize("word", ["word ", "字 ", "字", "ก", "\ud800", '"', "_ "])
def test_a_very_long_search_is_a_search(chats: Chats, word: str) -> None:
    chats.say(chats.create(), "A word")
    with suppress(UsageError):
        chats.search(word * 100_000)


def test_an_older_store_is_searched_by_words_of_any_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = m014_words_of_chats.migrate
    with monkeypatch.context() as patch:
        before = migrations.MIGRATIONS[: migrations.MIGRATIONS.index(step)]
        patch.setattr("ondevice.store._database.MIGRATIONS", before)
        old = Chats(Database(tmp_path / "store.db"))
        chat = old.create()
        for said, *_ in SCRIPTS:
            old.say(chat, said)
        old.database.close()

    class Stop(BaseException):
        """As Ctrl+C raises."""

    def stopped(connection: Connection) -> None:
        step(connection)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("ondevice.store._database.MIGRATIONS", (*before, stopped))
        with pytest.raises(Stop):
            Database(tmp_path / "store.db")
    chats = Chats(Database(tmp_path / "store.db"))
    for said, words, _ in SCRIPTS:
        assert said in [_text(hit) for hit in chats.search(words, conversation_id=chat)]
    chats.delete(chat)
    assert chats.memory.check() == []
    chats.database.close()


def _text(hit: ChatHit) -> str:
    return "".join(text for text, _ in hit.excerpt)


def test_what_the_user_said_is_remembered_and_recalled_once_in_another_conversation(
    chats: Chats,
) -> None:
    said = chats.say(chats.create(), "I live in Lisbon with my cat Mia.")
    assert any("Lisbon" in fact for fact in said.learnt)

    chat = chats.create()
    said = chats.say(chat, "Which city do I live in?", recall=200)
    assert any("Lisbon" in cube.content for cube in said.recalled)
    (message,) = chats.load(chat).messages
    assert message.content == "Which city do I live in?"
    (turn,) = chats.load(chat).turns()
    assert "Lisbon" in turn.content
    assert turn.content.endswith("\n\nWhich city do I live in?")
    assert chats.say(chat, "So, which city do I live in?", recall=200).recalled == ()
    again = chats.say(chat, "In which city do I live?", recall=200, instead_of=message.id)
    assert any("Lisbon" in cube.content for cube in again.recalled)


def test_what_has_left_the_context_of_a_long_chat_may_be_recalled_again(chats: Chats) -> None:
    chats.say(chats.create(), "My sister Ingrid lives in Lisbon.")
    chat = chats.create()
    chats.say(chat, "My brother Olaf lives in Porto.")
    ask = "Where do my sister Ingrid and my brother Olaf live?"

    def recalled(n_ctx: int) -> str:
        message = chats.say(chat, ask, recall=200, n_ctx=n_ctx)
        return " ".join(cube.content for cube in message.recalled)

    assert "Lisbon" in recalled(1000)
    assert recalled(1000) == ""  # all of it is in the context
    chats.say(chat, "Tell me about the sea. " * 200)
    assert recalled(2000) == ""
    again = recalled(1000)
    assert "Lisbon" in again and "Porto" in again


def test_a_private_conversation_is_neither_remembered_nor_helped_by_memories(
    chats: Chats,
) -> None:
    chats.say(chats.create(), "I live in Lisbon.")
    chat = chats.create(private=True)
    chats.say(chat, "My birthday is 3 May.", recall=200)
    assert chats.say(chat, "Which city do I live in?", recall=200).recalled == ()
    assert not chats.memory.search("birthday").hits


def test_a_memory_that_is_forgotten_is_no_longer_told_to_the_model(chats: Chats) -> None:
    chats.say(chats.create(), "I live in Lisbon.")
    chat = chats.create()
    chats.say(chat, "Which city do I live in?", recall=200)
    chats.memory.forget([cube.id for cube in chats.load(chat).messages[0].recalled])
    assert chats.load(chat).messages[0].recalled == ()
    assert "Lisbon" not in chats.load(chat).turns()[0].content


def bytes_of(database: Database) -> bytes:
    return b"".join(file.read_bytes() for file in database.path.parent.iterdir())


@pytest.mark.parametrize("forget", [False, True])
def test_no_byte_of_a_deleted_conversation_is_left(
    chats: Chats, database: Database, forget: bool
) -> None:
    database.backup()
    chat = chats.create(system="Xylophone", private=not forget)
    file = Attachment("Quagmire.txt", "Zephyr")
    chats.say(chat, "I live in Quetzaltenango.", [file])
    list(reply(chats, engine_that_says("Wolframite"), chat, Sampling()))
    chats.rename(chat, "Bdellium")
    chats.delete(chat, forget=forget)
    assert chats.headings() == []
    assert chats.search("Wolframite") == []
    with pytest.raises(StoreError, match="no longer in the store"):
        chats.load(chat)
    with pytest.raises(StoreError, match="deleted"):
        chats.say(chat, "More")
    words = ("Xylophone", "Quagmire", "Zephyr", "Quetzaltenango", "Wolframite", "Bdellium")
    kept = bytes_of(database).lower()
    assert [word for word in words if word.lower().encode() in kept] == []


def test_the_memory_of_a_deleted_conversation_may_stay(chats: Chats) -> None:
    chat = chats.create()
    chats.say(chat, "I live in Lisbon.")
    chats.delete(chat)
    assert chats.memory.search("Lisbon").hits


def test_what_was_said_before_can_be_had_again(chats: Chats) -> None:
    one, two = chats.create(), chats.create()
    for chat, text in ((one, "first"), (two, "second"), (one, "first")):
        chats.say(chat, text)
    assert chats.said() == ["second", "first"]


def test_a_store_from_before_there_were_branches_opens_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    old = connect(path)
    m001_conversations.migrate(old)
    m002_memory.migrate(old)
    old.execute("INSERT INTO conversation VALUES (1, 'Hi', '', '2026-01-01', '2026-01-01')")
    for position, role, text in ((0, "user", "Hi"), (1, "assistant", "Hello.")):
        old.execute(
            "INSERT INTO message (conversation_id, position, role, content, created_at) "
            "VALUES (1, ?, ?, ?, '2026-01-01')",
            (position, role, text),
        )
    old.execute("PRAGMA user_version=2")
    old.commit()
    old.close()
    database = Database(path)
    chats = Chats(database)
    assert contents(chats, 1) == ["Hi", "Hello."]
    assert [hit.heading.id for hit in chats.search("hello")] == [1]
    chats.say(1, "More")
    assert contents(chats, 1) == ["Hi", "Hello.", "More"]
    database.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
def test_the_store_is_private(database: Database) -> None:
    assert database.path.stat().st_mode & 0o777 == 0o600


def test_what_is_read_of_one_chat_does_not_grow_with_the_others(chats: Chats) -> None:
    def steps(look: Callable[[], object]) -> int:
        """How far SQLite goes for it."""
        taken: list[None] = []
        with chats.database.read() as connection:
            connection.set_progress_handler(lambda: taken.append(None), 10)
        look()
        with chats.database.read() as connection:
            connection.set_progress_handler(None, 0)
        return len(taken)

    first, other, now = chats.create(), chats.create(), datetime.now(UTC)
    for number in range(3):
        chats.say(first, f"The garden in month {number}", recall=100)
    looks = {
        "load": lambda: chats.load(first),
        "state": lambda: chats.state(first),
        "said": lambda: chats.said(3),
        "matches": lambda: chats.matches("garden", first),
    }
    before = {name: steps(look) for name, look in looks.items()}
    with chats.database.write() as connection:
        notes = _cubes.open_source(connection, "notes")
        for number in range(500):
            text = f"Number {number} of the garden"
            connection.execute(
                "INSERT INTO message(conversation_id, position, role, content, created_at) "
                "VALUES (?, ?, 'user', ?, '')",
                (other, number, text),
            )
            _cubes.insert(connection, notes, "note", text, event_at=now, written_at=now)
    grown = {name for name, look in looks.items() if steps(look) > 1.5 * before[name] + 20}
    assert not grown
