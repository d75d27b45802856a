"""What is forgotten is in no file of the store any more, wherever it was quoted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ondevice.chats import Attachment, Chats, reply
from ondevice.memory._forget import _NO_TEXTS
from ondevice.messages import Load, Sampling
from ondevice.store import Connection, Database
from ondevice.testing import FakeEngine


@pytest.fixture
def chats(tmp_path: Path) -> Iterator[Chats]:
    database = Database(tmp_path / "store.db")
    yield Chats(database)
    database.close()


def files_with(chats: Chats, text: str) -> list[str]:
    """The files of the store that have these bytes, whatever the capitals."""
    return [
        file.name
        for file in chats.database.path.parent.rglob("*")
        if file.is_file() and text.encode().lower() in file.read_bytes().lower()
    ]


def everywhere(connection: Connection, text: str) -> list[str]:
    """Put the text into every column that can hold one, and return which these are."""
    columns = []
    for (table,) in connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' "
        "AND name NOT LIKE '%_index_%' AND name NOT LIKE 'sqlite_%'"
    ).fetchall():
        for row in connection.execute(
            "SELECT name FROM pragma_table_info(?) WHERE type = 'TEXT'", (table,)
        ).fetchall():
            name = row["name"]
            if name in _NO_TEXTS or name == "at" or name.endswith("_at"):
                continue
            (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            assert count, f"fill the table {table}, so that forgetting is tested in it"
            connection.execute(f"UPDATE {table} SET {name} = ?", (f"so: {text}, then",))
            columns.append(f"{table}.{name}")
    return columns


def fill(chats: Chats) -> None:
    """A row in every table, so that each column can hold the text."""
    for text in ("One thing to say here", "And another one"):
        chats.say(chats.create("Be brief."), text, [Attachment("a.txt", "a file")])
    note = chats.memory.add("A note with a tag", tags=["tag"]).cube
    chats.memory.edit(note.id, "A note that was edited")
    with chats.database.write() as connection:
        for table in (
            "open_tab VALUES ('w', 0, NULL, 1, '', NULL, '')",
            "open_paste VALUES ('w', 0, 'p', '')",
            "import_run VALUES (1, 'f', '2024-05-03')",
            "unread SELECT id, 'x' FROM cube LIMIT 1",
            "summary SELECT id, 'x', 1, '2024-05-03' FROM message LIMIT 1",
            "state_key VALUES ('n', NULL, x'00')",
        ):
            connection.execute(f"INSERT OR IGNORE INTO {table}")


@pytest.mark.parametrize(
    "text",
    [
        *("My dog is called Zebulon", "Zebulon is 9", "我住在柏林", "I said it’s “Zorblat” (9)."),
        # letters that a regular expression and an index part in other places
        *("मेरे कुत्ते का नाम झबरू है।", "Kedimin adı İlhami, ilginç bir ad.", "झबरू शेरू"),
        *("என் நாய் பெயர் மணி", "เมื่อวานฉันกินข้าวผัดกุ้ง", "كَلْبِي اسْمُهُ زَيْتُون"),
        "Ma sœur Ame\u0301lixie vit a\u0300 Ne\u0301rac avec nous.",
        "My dog is called Ze\u0301bulon now",
    ],
)
def test_forgetting_takes_a_text_out_of_every_column(chats: Chats, text: str) -> None:
    fill(chats)
    with chats.database.write() as connection:
        columns = everywhere(connection, text)
    assert {"cube.content", "conversation.system", "open_paste.name", "tag.name"} < set(columns)
    told = chats.memory.add(text).cube
    chats.database.backup()
    assert {file for file in files_with(chats, text) if not file.endswith("-shm")}
    chats.memory.forget([told.id])
    assert files_with(chats, text) == []
    assert chats.memory.check() == []


def test_what_is_forgotten_does_not_come_back_with_a_reply_that_is_being_written(
    chats: Chats,
) -> None:
    text = "My therapist is Dr. Quagmire"
    chat = chats.create()
    chats.say(chat, text)
    engine = FakeEngine([f"You said: {text}. ", "And ", "more."])
    engine.load(Load(path="any.gguf"))
    events = reply(chats, engine, chat, Sampling())
    next(events)  # and what has come is in the store
    chats.memory.forget([cube.id for cube in chats.memory.latest()])
    list(events)
    assert contents(chats, chat) == ["[forgotten]", "You said: [forgotten]. And more."]
    assert files_with(chats, text) == []


@pytest.mark.parametrize("place", ["summary", "system prompt"])
def test_nor_does_what_the_reply_was_given_in_a_summary_or_a_system_prompt(
    chats: Chats, place: str
) -> None:
    text = "My therapist is Dr. Quagmire"
    told = chats.memory.add(text).cube
    chat = chats.create("" if place == "summary" else f"Be brief.\n{text}.")
    first = chats.say(chat, "What have we talked about?").message_id
    if place == "summary":
        chats.summarise(first, f"- {text}\n- The garden needs a new fence")
    engine = FakeEngine([f"I know: {text[:12]}", f"{text[12:]}. ", "And ", "more."])
    engine.load(Load(path="any.gguf"))
    events = reply(chats, engine, chat, Sampling())
    next(events)
    chats.memory.forget([told.id])
    list(events)
    assert contents(chats, chat)[1] == "I know: [forgotten]. And more."
    assert files_with(chats, "quagmire") == []


def contents(chats: Chats, chat: int) -> list[str]:
    return [message.content for message in chats.load(chat).messages]


def test_memories_that_quote_it_are_blanked_too_and_that_is_told_before(chats: Chats) -> None:
    text = "My therapist is Dr. Quagmire"
    told = chats.memory.add(text).cube
    chat = chats.create(f"You know: {text}")
    chats.say(chat, "Hello there, what shall we do about the house?")
    chats.say(chat, "As I said:\n> my therapist  is\n> Dr. Quagmire.\nAnd I like tea.")
    chats.rename(chat, "About Quagmire")
    (where, reads) = zip(*((b.where, b.text) for b in chats.memory.blanked([told.id])), strict=True)
    assert {"memory", "message", "system prompt", "title"} <= set(where)
    assert "About Quagmire" in reads
    going = chats.memory.going([told.id])
    assert [cube for cube in going if cube.kind != "fact"] == [told]
    chats.memory.forget([told.id])
    assert files_with(chats, "quagmire") == []
    assert contents(chats, chat)[1].endswith("> [forgotten].\nAnd I like tea.")
    assert chats.memory.search("tea").hits[0].cube.content == contents(chats, chat)[1]


@pytest.mark.parametrize("text", ["yes", "Ok, thanks!", "Go on", "2024", "Danke", "好的", "はい"])
def test_a_text_that_says_nothing_empties_no_other(chats: Chats, text: str) -> None:
    told = chats.memory.add(text).cube
    other = f"{text} that was so"
    chat = chats.create(other)
    chats.say(chat, other)
    assert chats.memory.blanked([told.id]) == []
    chats.memory.forget([told.id])
    assert (contents(chats, chat), chats.load(chat).system) == ([other], other)


@pytest.mark.parametrize(
    "text", ["I'm gay", "Mo has HIV", "Sofia", "4711", "我怀孕了", "ich bin 41"]
)
def test_short_texts_are_found_as_whole_words(chats: Chats, text: str) -> None:
    told = chats.memory.add(text).cube
    chats.say(chat := chats.create(), f"So, {text}, and x{text}x too")
    chats.memory.forget([told.id])
    kept = "[forgotten]" if text.startswith("我") else text
    assert contents(chats, chat) == [f"So, [forgotten], and x{kept}x too"]


def test_a_title_goes_with_its_own_message_and_others_keep_theirs(chats: Chats) -> None:
    chats.say(other := chats.create(), "Which museums shall we see?")
    chats.rename(other, "Paris")
    said = chats.say(own := chats.create(), "My ex Anna moved to Paris with the dog")
    chats.give_title(own, "A break-up")
    (cube,) = (c for c in chats.memory.latest(kind="turn") if c.message_id == said.message_id)
    chats.memory.forget([cube.id])
    titles = {heading.id: heading.title for heading in chats.headings()}
    assert (titles[own], titles[other]) == ("", "Paris")


def test_a_fact_goes_with_the_last_that_says_it(chats: Chats) -> None:
    told = chats.memory.add("I live in Lyon").cube
    chats.say(chats.create(), "I told you before. I live in Lyon. My dog is called Rex.")
    chats.memory.forget([told.id])
    facts = [cube.content for cube in chats.memory.latest(kind="fact", status="active")]
    assert facts == ["The user's dog is called Rex."]


def test_many_texts_without_spaces_leave_the_index_together(chats: Chats) -> None:
    chat = chats.create()
    for number in range(0x4E00, 0x4E00 + 210):
        chats.memory.add(f"龘靐齉{chr(number)}爩鱻")
    for cube in chats.memory.latest(limit=300)[:3]:
        chats.memory.edit(cube.id, "龘靐齉驫麤")
    assert len(chats.memory.search("靐齉", limit=300).hits) == 210
    with chats.database.write() as connection:
        chats.memory.forget_within(connection, [c.id for c in chats.memory.latest(limit=300)])
    chats.database.scrub()
    assert [files_with(chats, part) for part in ("龘靐", "爩鱻", "驫麤")] == [[]] * 3
    assert chats.memory.search("靐齉").hits == ()
    assert chats.load(chat).messages == ()


def test_what_has_no_spaces_is_found_by_any_two_letters(chats: Chats) -> None:
    chats.memory.add("我上个月搬到了柏林")
    for asked in ("柏林", "搬到", "柏林怎么样"):
        assert chats.memory.search(asked).hits, asked
    assert not chats.memory.search("巴黎").hits


def test_what_is_deleted_is_not_listed_unless_asked_for(chats: Chats) -> None:
    note = chats.memory.add("Some note").cube
    chats.memory.forget([note.id])
    assert chats.memory.latest() == []
    assert [cube.id for cube in chats.memory.latest(status="deleted")] == [note.id]
