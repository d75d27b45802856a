"""What the user told is kept, corrected, found out of date, and forgotten to the last byte."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ondevice.errors import FileError, NotFound, StoreError, UsageError
from ondevice.memory import Cube, Memory, Remembered, parse_label
from ondevice.store import Database

MAY, JUNE, JULY = (datetime(2024, month, 3, 12, tzinfo=UTC) for month in (5, 6, 7))


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    database = Database(tmp_path / "data" / "store.db")
    yield Memory(database)
    database.close()


def say(
    memory: Memory, text: str, *, message: int = 1, at: datetime = MAY, pasted: str = ""
) -> Remembered:
    """Save a message of the user and remember it, in one transaction as the app does."""
    with memory.database.write() as connection:
        connection.execute(
            "INSERT OR IGNORE INTO conversation(id, system, created_at, updated_at) "
            "VALUES (1, '', '2024-05-03', '2024-05-03')"
        )
        connection.execute(
            "INSERT INTO message(id, conversation_id, position, role, content, created_at) "
            "VALUES (?1, 1, ?1, 'user', ?2, '2024-05-03') "
            "ON CONFLICT DO UPDATE SET content = excluded.content",
            (message, text),
        )
        return memory.remember_turn(
            connection, conversation_id=1, message_id=message, text=text, pasted=[pasted], at=at
        )


def facts(memory: Memory, status: str = "active") -> set[str]:
    return {plain(cube) for cube in memory.latest(kind="fact") if cube.status == status}


def plain(fact: Cube) -> str:
    """The sentence without the words in brackets by which it is found as well."""
    return re.sub(r" \(.*\)", "", fact.content)


def assert_gone(memory: Memory, *texts: str) -> None:
    """No file of the store has one of these texts, not even a word of the index."""
    for file in memory.database.path.parent.iterdir():
        content = file.read_bytes().lower()
        for text in texts:
            assert text.lower().encode() not in content, (file.name, text)


def test_a_turn_is_saved_with_its_message_or_not_at_all(memory: Memory) -> None:
    say(memory, "Hello", message=1)
    with pytest.raises(ZeroDivisionError), memory.database.write() as connection:
        connection.execute("UPDATE message SET content = 'I live in Lyon'")
        memory.remember_turn(connection, conversation_id=1, message_id=1, text="I live in Lyon")
        raise ZeroDivisionError
    assert [cube.content for cube in memory.latest()] == ["Hello"]
    turn = say(memory, "I live in Lyon", message=2).cube
    assert (turn.kind, turn.message_id, turn.content) == ("turn", 2, "I live in Lyon")


def test_a_fact_points_to_the_turn_it_was_read_from(memory: Memory) -> None:
    said = say(memory, "Hello, my name is Ana Silva and I live in Lyon.")
    assert facts(memory) == {"The user's name is Ana Silva.", "The user lives in Lyon."}
    for fact in said.facts:
        (link,) = (link for link in memory.history(fact.id).links if link.from_id == fact.id)
        assert (link.kind, link.to_id) == ("evidence", said.cube.id)


def test_a_new_value_supersedes_the_old_one_and_both_are_found(memory: Memory) -> None:
    say(memory, "I live in Lyon", message=1, at=MAY)
    new = say(memory, "I've just moved to Berlin, what a city", message=2, at=JUNE).facts[0]
    assert facts(memory) == {"The user lives in Berlin."}
    assert facts(memory, "superseded") == {"The user lives in Lyon."}
    (old,) = memory.history(new.id).earlier
    assert plain(old) == "The user lives in Lyon."
    assert memory.history(old.id).later == (new,)
    found = [plain(hit.cube) for hit in memory.search("where do I live", kinds=["fact"]).hits]
    assert found == ["The user lives in Berlin.", "The user lives in Lyon."]


def test_what_was_so_before_comes_first_when_it_is_asked_for(memory: Memory) -> None:
    memory.add("I live in Lyon", at=MAY)
    memory.add("I've just moved to Berlin", at=JUNE)
    for question in ("Where did I live before I moved?", "Where did I use to live previously?"):
        assert "Lyon" in memory.search(question, kinds=["fact"]).hits[0].cube.content


def test_an_older_text_that_comes_later_does_not_overrule(memory: Memory) -> None:
    say(memory, "I live in Berlin", message=1, at=JULY)
    say(memory, "I live in Lyon", message=2, at=MAY)
    assert facts(memory) == {"The user lives in Berlin."}
    assert facts(memory, "superseded") == {"The user lives in Lyon."}


@pytest.mark.parametrize(
    "when",
    [
        "in March",
        "in early March 2024",
        "at the end of the summer",
        "on the 3rd",
        "on Friday",
        "about two years ago",
        "a while ago",
        "back in 2019",
        "again",
    ],
)
def test_when_it_was_is_no_part_of_a_fact(memory: Memory, when: str) -> None:
    (fact,) = memory.add(f"I moved to Porto {when}.").facts
    assert fact.content == "The user lives in Porto (home, city, address)."


def test_the_same_fact_twice_is_one_fact_with_two_evidences(memory: Memory) -> None:
    first = say(memory, "I live in Lyon", message=1)
    second = say(memory, "Did I say that I live in lyon?  I live in Lyon.", message=2)
    assert second.facts == ()
    fact = first.facts[0].id
    evidence = {link.to_id for link in memory.history(fact).links if link.from_id == fact}
    assert evidence == {first.cube.id, second.cube.id}


def test_an_edited_message_keeps_what_it_said_as_a_version(memory: Memory) -> None:
    turn = say(memory, "I live in Lyon").cube
    say(memory, "I live in Nantes", at=JUNE)
    known = memory.history(turn.id)
    assert (known.cube.content, known.cube.version) == ("I live in Nantes", 2)
    assert [version.content for version in known.versions] == ["I live in Lyon"]
    assert facts(memory) == {"The user lives in Nantes."}
    assert facts(memory, "superseded") == set()


def test_facts_follow_a_note_that_is_corrected(memory: Memory) -> None:
    note = memory.add("I live in Lyon").cube
    memory.edit(note.id, "I live in Nantes")
    assert facts(memory) == {"The user lives in Nantes."}


@pytest.mark.parametrize(
    "text",
    [
        "> I live in Rome",
        "```\nI live in Rome\n```",
        'She told me: "I live in Rome"',
        "If I live in Rome, then what?",
        "Do I live in Rome?",
        "Translate: he said I live in Rome",
    ],
)
def test_what_is_not_the_users_own_statement_is_no_fact(memory: Memory, text: str) -> None:
    assert say(memory, text).facts == ()


def test_pasted_text_is_kept_but_not_mined(memory: Memory) -> None:
    text = "I live in Lyon. See this:\nI live in Rome"
    (fact,) = say(memory, text, pasted="I live in Rome").facts
    assert plain(fact) == "The user lives in Lyon."
    assert memory.search("Rome").hits


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("my password is hunter2!", "hunter2"),
        ("My bank password is correcthorsebattery", "correcthorse"),
        ("DB_PASSWORD=supersecret", "supersecret"),
        ('{"client_secret": "k3J9xQ27Lm"}', "k3J9xQ27Lm"),
        ("Authorization: Bearer k3J9xQ27Lmk3J9xQ27Lm", "k3J9x"),
        ("SG.k3J9xQ27Lmk3J9xQ27Lm.k3J9xQ27Lmk3J9xQ27Lm", "k3J9x"),
        ("Mein WLAN-Passwort lautet Sommer24", "Sommer24"),
        ("le mot de passe du wifi c'est Soleil99", "Soleil99"),
        ("La clave del wifi es luna2024x", "luna2024x"),
        ("Пароль от вайфая: zima2024", "zima2024"),
        ("我的密码是zima2024，别告诉别人", "zima2024"),
        ("暗証番号は4711です", "4711"),
        ("zima2024 is my password", "zima2024"),
        ("My SSN is 078-05-1120", "078-05"),
        ("password: correcthorse", "correcthorse"),
        ("the PIN for my bank card is 4711", "4711"),
        ("use sk-proj-abcdefghij1234567890 for it", "abcdefghij"),
        ("token ghp_0123456789abcdefghijABCDEFGHIJ012345", "0123456789"),
        ("AKIAIOSFODNN7EXAMPLE is the key", "IOSFODNN7"),
        ("pay with 4111 1111 1111 1111 today", "1111"),
        ("send it to DE89 3704 0044 0532 0130 00", "3704"),
        ("clone https://bob:s3cret@example.org/x", "s3cret"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADAN\n-----END PRIVATE KEY-----", "MIIE"),
    ],
)
def test_secrets_are_left_out_unless_the_user_insists(
    memory: Memory, text: str, secret: str
) -> None:
    remembered = memory.add(text)
    assert remembered.left_out
    assert secret not in remembered.cube.content
    assert_gone(memory, secret)
    insisted = memory.add(text, keep_secrets=True)
    assert insisted.cube.content == text
    assert insisted.left_out == ()


@pytest.mark.parametrize(
    "text",
    [
        "my password is too long to remember",
        "The password was changed yesterday",
        "Password: required field",
        "password = os.environ['DB_PASSWORD']",
        "The secret key is patience.",
        "room pin: 12th floor",
        "The passenger: Anna",
        "max_tokens=2048",
        "Das Passwort ist abgelaufen",
        "IMEI 490154203237518",
        "Пароль был изменён вчера",
        "密码是错的",
        "call me at +49 170 1234567",
        "order 4111111111111112 has not come",
        "in 2023 I ran 10 km in 59 minutes",
    ],
)
def test_ordinary_texts_are_not_taken_for_secrets(memory: Memory, text: str) -> None:
    remembered = memory.add(text)
    assert (remembered.cube.content, remembered.left_out) == (text, ())


def test_a_correction_leaves_secrets_out_too(memory: Memory) -> None:
    note = memory.add("The wifi is called Zebra").cube
    assert memory.edit(note.id, "Its password is k3J9xQ27Lm").content.endswith("left out]")
    assert_gone(memory, "k3J9xQ27Lm")
    kept = memory.add("My PIN is 4711", keep_secrets=True).cube
    assert memory.edit(kept.id, "My PIN is 4712").content == "My PIN is 4712"


def test_the_same_note_twice_is_one(memory: Memory) -> None:
    first = memory.add("The key is under the mat", tags=["home"])
    assert memory.add("The key is under the mat", tags=["keys"]).cube == first.cube
    assert memory.history(first.cube.id).tags == ("home", "keys")
    assert memory.latest(tag="keys") == [first.cube]


def test_archived_memories_are_not_found_until_they_are_active_again(memory: Memory) -> None:
    note = memory.add("Quarterly zeppelin report").cube
    memory.set_status(note.id, "archived")
    assert memory.search("zeppelin").hits == ()
    assert memory.search("zeppelin", statuses=["archived"]).hits
    memory.set_status(note.id, "active")
    assert memory.search("zeppelin").hits


def test_forgetting_leaves_no_byte(memory: Memory) -> None:
    secret = "My dog is called Zebulon and I am allergic to Quinoaflour"
    turn = say(memory, "Tell me about my xylophones", message=1).cube
    say(memory, secret, message=1)  # the first text is a version now
    say(memory, f"You quoted me: {secret}", message=2, pasted=secret)
    memory.add("My dog is called Zebulon")
    with memory.database.write() as connection:
        connection.execute("UPDATE conversation SET title = 'My dog is called Zebulon…'")
    memory.database.backup()
    for number in range(50):
        memory.add(f"Something else, number {number}")
    going = memory.going([turn.id])
    assert {cube.kind for cube in going} == {"turn", "fact"}
    quoting = memory.search("quoted").hits[0].cube.id
    note = memory.search("dog called", kinds=["note"]).hits[0].cube.id
    memory.forget([turn.id])
    memory.forget([quoting, note])
    assert_gone(memory, "zebulon", "quinoaflour", "xylophon")
    assert memory.search("dog Zebulon allergic xylophones").hits == ()
    assert memory.check() == []
    assert memory.history(turn.id).cube.status == "deleted"
    with memory.database.read() as connection:
        contents = [row[0] for row in connection.execute("SELECT content FROM message")]
    assert contents == ["[forgotten]", "[forgotten]"]


def test_forgetting_a_fact_forgets_the_turns_that_say_it(memory: Memory) -> None:
    said = say(memory, "I live in Zebulonville")
    memory.forget([said.facts[0].id])
    assert_gone(memory, "zebulonville")


def test_forgetting_a_turn_keeps_what_other_turns_say_too(memory: Memory) -> None:
    first = say(memory, "I live in Lyon", message=1).cube
    say(memory, "I have just moved to Lyon.", message=2)
    memory.forget([first.id])
    assert facts(memory) == {"The user lives in Lyon."}


def test_what_a_forgotten_fact_replaced_holds_again(memory: Memory) -> None:
    say(memory, "I live in Lyon", message=1, at=MAY)
    second = say(memory, "I live in Berlin", message=2, at=JUNE)
    memory.forget([second.cube.id])
    assert facts(memory) == {"The user lives in Lyon."}


def test_a_conversation_is_forgotten_as_a_whole(memory: Memory) -> None:
    for message in (1, 2, 3):
        say(memory, f"Zebulon is number {message}", message=message)
    memory.add("Kept")
    assert memory.forget_conversation(1) == 3
    assert_gone(memory, "zebulon")
    assert [cube.content for cube in memory.latest(status="active")] == ["Kept"]


def test_a_deleted_conversation_leaves_its_memories_without_their_messages(
    memory: Memory,
) -> None:
    turn = say(memory, "I live in Lyon").cube
    with memory.database.write() as connection:
        connection.execute("DELETE FROM conversation")
    assert memory.history(turn.id).cube.message_id is None
    assert memory.search("Lyon").hits


def test_a_changed_file_supersedes_what_it_said_before(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "plan.md"
    file.write_text("# Plan\n\nThe launch is in March.\n")
    (old,) = memory.add_file(file)
    assert memory.add_file(file) == []
    file.write_text("# Plan\n\nThe launch is in August.\n")
    (new,) = memory.add_file(file)
    assert memory.history(old.id).cube.status == "superseded"
    assert memory.history(new.id).earlier[0].id == old.id
    assert [hit.cube.id for hit in memory.search("launch").hits] == [new.id, old.id]


def test_a_document_is_never_mined(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("I live in Rome. My name is Julius.")
    memory.add_file(file)
    assert facts(memory) == set()


def test_a_long_file_is_cut_between_paragraphs(memory: Memory, tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {n}: " + "word " * 50 for n in range(30)] + ["x" * 2500]
    file = tmp_path / "long.txt"
    file.write_text("\n\n".join(paragraphs))
    chunks = memory.add_file(file)
    assert all(len(chunk.content) <= 1000 for chunk in chunks)
    whole = "".join(chunk.content for chunk in chunks).replace("\n", "").replace(" ", "")
    assert whole == "".join(paragraphs).replace(" ", "")
    assert [chunk.id for chunk in chunks] == list(range(chunks[0].id, chunks[-1].id + 1))


def test_files_without_text_are_refused_with_a_reason(memory: Memory, tmp_path: Path) -> None:
    for name, content in (("a.txt", b""), ("b.txt", b"\xff\xfe\x00"), ("c.pdf", b"%PDF-1.4 no")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FileError, match=name):
            memory.add_file(tmp_path / name)
    assert memory.statistics().cubes == 0


def test_numbers_of_memories_are_checked(memory: Memory) -> None:
    note = memory.add("a note").cube
    assert parse_label(note.label) == note.id
    for wrong in ("", "3", "a:b", "3:", "-1:2", "3:17:4"):
        with pytest.raises(UsageError, match="such as 3:17"):
            parse_label(wrong)
    with pytest.raises(NotFound, match="no memory 9:9"):
        memory.history(parse_label("9:9"))
    with pytest.raises(NotFound, match="no memory 9:9"):
        memory.forget([note.id, parse_label("9:9")])
    assert memory.search("note").hits  # the one that exists was not forgotten either


def test_a_check_finds_an_index_that_does_not_match(memory: Memory) -> None:
    memory.add("I like zeppelins")
    assert memory.check() == []
    with memory.database.write() as connection:
        connection.execute("DROP TRIGGER cube_changed")
        connection.execute("UPDATE cube SET content = 'I like balloons'")
    assert any("index" in problem for problem in memory.check())


def test_a_second_writer_waits_its_turn_or_is_told(memory: Memory) -> None:
    other = Memory(Database(memory.database.path))
    with other.database.read() as connection:
        connection.execute("PRAGMA busy_timeout=50")
    with memory.database.write(), pytest.raises(StoreError, match="another program"):
        other.add("too soon")
    other.add("now")
    assert [cube.content for cube in memory.latest()] == ["now"]
    other.database.close()
