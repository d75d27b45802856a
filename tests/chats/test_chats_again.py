"""The same export again adds only what is new; and an import can be taken back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile_chats
import pytest

from ondevice.chats import Attachment, Chats, reply
from ondevice.errors import NotFound
from ondevice.messages import Load, Sampling
from ondevice.store import Database
from ondevice.testing import FakeEngine

AT = 1_700_000_000.0


def gpt(id_: str | None, *said: str, title: str = "Trip", **changes: Any) -> dict[str, Any]:
    """A chat of ChatGPT in which user and assistant take turns."""
    mapping = {
        f"n{place}": {
            "parent": f"n{place - 1}" if place else None,
            "children": [f"n{place + 1}"] if place + 1 < len(said) else [],
            "message": {
                "author": {"role": "assistant" if place % 2 else "user"},
                "content": {"content_type": "text", "parts": [text]},
                "create_time": AT + place,
            },
        }
        for place, text in enumerate(said)
    }
    ids = {"conversation_id": id_} if id_ else {}
    end = f"n{len(said) - 1}"
    chat = {"title": title, "create_time": AT, "current_node": end, "mapping": mapping}
    return {**chat, **ids, **changes}


def claude(id_: str | None, *said: str, ids: bool = True) -> dict[str, Any]:
    """The same of Claude."""
    none = "00000000-0000-4000-8000-000000000000"
    messages = []
    for place, text in enumerate(said):
        named = {"uuid": f"m{place}", "parent_message_uuid": f"m{place - 1}" if place else none}
        messages.append(
            {
                "sender": "assistant" if place % 2 else "human",
                "text": text,
                "created_at": f"2025-01-02T03:04:{place:02}Z",
                **(named if ids else {}),
            }
        )
    chat = {"name": "Trip", "created_at": "2025-01-02T03:04:00Z", "chat_messages": messages}
    return {**chat, **({"uuid": id_} if id_ else {})}


def contents(chats: Chats, id_: int) -> list[str]:
    return [message.content for message in chats.load(id_).messages]


def taken(chats: Chats, path: Path, *them: dict[str, Any], **options: Any) -> str:
    path.write_text(json.dumps(list(them)))
    return str(chats.import_(path, **options))


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "chatgpt": lambda *said: gpt("c1", *said),
    "chatgpt without id": lambda *said: gpt(None, *said),
    "claude": lambda *said: claude("c1", *said),
    "claude without ids": lambda *said: claude(None, *said, ids=False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_chat_that_grew_gets_its_new_messages(chats: Chats, tmp_path: Path, kind: str) -> None:
    path, make = tmp_path / "conversations.json", KINDS[kind]
    assert taken(chats, path, make("a", "b")) == "1 new"
    (heading,) = chats.headings()
    assert taken(chats, path, make("a", "b")) == "0 new, 1 unchanged"
    assert taken(chats, path, make("a", "b", "a", "b")) == "0 new, 1 grown"
    assert contents(chats, heading.id) == ["a", "b", "a", "b"]
    assert taken(chats, path, make("a", "b")) == "0 new, 1 unchanged"  # an older one
    assert taken(chats, path, {**make("a", "b", "a", "b"), "x": 1}) == "0 new, 1 unchanged"
    assert [one.messages for one in chats.headings()] == [4]


def test_what_was_said_here_stays_in_view_and_new_messages_are_a_branch(
    chats: Chats, tmp_path: Path
) -> None:
    path = tmp_path / "conversations.json"
    taken(chats, path, gpt("c", "a", "b"))
    (heading,) = chats.headings()
    chats.say(heading.id, "mine")
    chats.rename(heading.id, "My title")
    assert taken(chats, path, gpt("c", "a", "b", "theirs", title="New")) == "0 new, 1 grown"
    assert contents(chats, heading.id) == ["a", "b", "mine"]
    assert len(chats.load(heading.id).messages[2].versions) == 2
    assert chats.load(heading.id).title == "My title"


def test_equal_chats_without_ids_stay_as_many_as_they_are(chats: Chats, tmp_path: Path) -> None:
    path = tmp_path / "conversations.json"
    same = [gpt(None, "hi"), gpt(None, "hi"), gpt(None, "hi", title="Other")]
    assert taken(chats, path, *same) == "3 new"
    assert taken(chats, path, *same) == "0 new, 3 unchanged"


def test_what_was_deleted_here_comes_back_only_when_asked_for(chats: Chats, tmp_path: Path) -> None:
    path = tmp_path / "conversations.json"
    both = gpt("c", "a", title="Secret plan"), gpt("d", "x")
    taken(chats, path, *both)
    chats.delete(next(one.id for one in chats.headings() if one.title == "Secret plan"))
    assert b"Secret plan" not in (tmp_path / "store.db").read_bytes()
    result = chats.import_(path)
    assert (result.deleted, result.unchanged, list(result)) == (["Secret plan"], 1, [])
    path.write_text(json.dumps([gpt("c", "a", "b", title="Secret plan"), both[1]]))
    assert chats.import_(path).deleted == ["Secret plan"]  # also when it grew
    assert str(chats.import_(path, deleted=True)) == "1 new, 1 unchanged"
    assert sorted(one.messages for one in chats.headings()) == [1, 2]
    assert str(chats.import_(path)) == "0 new, 2 unchanged"
    chats.undo_import()
    assert chats.import_(path).deleted == ["Secret plan"]  # still


def test_an_export_of_our_own_adds_nothing_where_it_comes_from(
    chats: Chats, tmp_path: Path
) -> None:
    engine = FakeEngine(["One."], ["Two."], ["Three."])
    engine.load(Load(path="fake.gguf"))
    chat = chats.create("Be kind.")
    first = chats.say(chat, "Hi", [Attachment("a.txt", "x")]).message_id
    list(reply(chats, engine, chat, Sampling()))
    chats.export(chat, tmp_path / "old.json")
    chats.say(chat, "Hello", instead_of=first)
    list(reply(chats, engine, chat, Sampling()))
    chats.pin(chat)
    chats.export(chat, tmp_path / "new.json")
    for name in ("old.json", "new.json"):
        assert str(chats.import_(tmp_path / name)) == "0 new, 1 unchanged"

    other = Chats(Database(tmp_path / "other" / "store.db"))
    for name, said in (("old.json", "1 new"), ("new.json", "0 new, 1 grown")):
        assert str(other.import_(tmp_path / name)) == said
    (heading,) = other.headings()
    assert contents(other, heading.id) == contents(chats, chat)
    assert not heading.pinned  # as it is there
    other.say(heading.id, "And on")
    list(reply(other, engine, heading.id, Sampling()))
    other.export(heading.id, tmp_path / "back.json")
    assert str(chats.import_(tmp_path / "back.json")) == "0 new, 1 grown"
    assert contents(chats, chat)[-2:] == ["And on", "Three."]
    chats.export(chat, tmp_path / "again.json")

    def plain(name: str) -> list[dict[str, Any]]:
        """Without the numbers that each store gives for itself."""
        (found,) = json.loads((tmp_path / name).read_text())["chats"]
        ids = {message["id"]: place for place, message in enumerate(found["messages"])}
        messages: list[dict[str, Any]] = found["messages"]
        for message in messages:
            message["parent"] = ids.get(message.get("parent"))
            del message["id"]
        return messages

    assert plain("again.json") == plain("back.json")
    other.database.close()


def test_what_was_forgotten_stays_forgotten(chats: Chats, tmp_path: Path) -> None:
    path = tmp_path / "conversations.json"
    said = "My brother Ulf lives in a lighthouse near Malmö."
    taken(chats, path, gpt("c", said, "I see."), claude("d", said, "So."))
    ids = [one.id for one in chats.headings()]
    for id_ in ids:
        chats.export(id_, tmp_path / f"{id_}.json")
    chats.remember(ids)
    chats.memory.forget([hit.cube.id for hit in chats.memory.search("Ulf").hits])
    taken(chats, path, gpt("c", said, "I see.", "more"), claude("d", said, "So.", "more"))
    for id_ in ids:
        chats.import_(tmp_path / f"{id_}.json")
        assert contents(chats, id_)[0] == "[forgotten]"
    chats.remember(ids)
    assert len(chats.headings()) == 2
    assert not chats.search("lighthouse")


def test_an_import_is_undone_with_what_was_learnt_from_it(chats: Chats, tmp_path: Path) -> None:
    path = tmp_path / "conversations.json"
    mine = chats.create()
    chats.say(mine, "I live in Porto.")
    chats.say(mine, "Thanks a lot for all of this!")
    taken(chats, path, gpt("old", "I have a dog called Rex.", "Nice."))
    chats.remember([one.id for one in chats.headings()])
    before = sorted(cube.content for cube in chats.memory.latest(status="active"))
    old = next(one.id for one in chats.headings() if one.id != mine)

    grown = gpt("old", "I have a dog called Rex.", "Nice.", "I live in Lisbon.", "Oh.")
    now = gpt("new", "I live in Rome.", "Ah.", "Thanks a lot for all of this!", "Well.")
    for place, node in enumerate([*grown["mapping"].values(), *now["mapping"].values()]):
        node["message"]["create_time"] = 4_000_000_000 + place  # later than what was said here
    path.write_text(json.dumps([grown, now]))
    result = chats.import_(path)
    assert str(result) == "1 new, 1 grown"
    chats.remember(result, run=result.run)
    assert sorted(cube.content for cube in chats.memory.latest(status="active")) != before
    latest = chats.last_import()
    assert latest is not None
    assert (latest.name, latest.chats, latest.grown) == ("conversations.json", 1, 1)

    undone = chats.undo_import()
    assert (undone.removed, undone.shrunk, undone.kept) == (1, 1, 0)
    assert contents(chats, old) == ["I have a dog called Rex.", "Nice."]
    assert contents(chats, mine) == ["I live in Porto.", "Thanks a lot for all of this!"]
    assert sorted(cube.content for cube in chats.memory.latest(status="active")) == before
    assert not chats.memory.search("Rome").hits and not chats.search("Rome")
    for file in tmp_path.glob("store*"):
        assert b"Rome" not in file.read_bytes()
    assert not chats.memory.check()
    assert str(chats.import_(path)) == "1 new, 1 grown"  # it was not deleted on purpose

    chats.undo_import()
    chats.undo_import()
    assert [one.id for one in chats.headings()] == [mine]
    with pytest.raises(NotFound, match="no import"):
        chats.undo_import()


def test_what_was_said_since_an_import_is_not_undone(chats: Chats, tmp_path: Path) -> None:
    path = tmp_path / "conversations.json"
    taken(chats, path, gpt("a", "x", "y"), gpt("b", "z"))
    kept = next(one.id for one in chats.headings() if one.messages == 2)
    chats.say(kept, "mine")
    undone = chats.undo_import()
    assert (undone.removed, undone.kept) == (1, 1)
    assert contents(chats, kept) == ["x", "y", "mine"]
    assert chats.last_import() is None
    assert taken(chats, path, gpt("a", "x", "y"), gpt("b", "z")) == "1 new, 1 unchanged"


def test_undoing_a_long_chat(chats: Chats, tmp_path: Path) -> None:
    taken(chats, tmp_path / "conversations.json", gpt("a", *map(str, range(1500))))
    assert chats.undo_import().removed == 1
    assert chats.headings() == []


def test_a_monthly_export_is_quick(chats: Chats, tmp_path: Path) -> None:
    path = tmp_path / "conversations.json"
    many = [gpt(f"c{n}", *[f"{n} {m}" for m in range(4)]) for n in range(500)]
    taken(chats, path, *many)
    began = time.process_time()
    assert taken(chats, path, *many) == "0 new, 500 unchanged"
    assert time.process_time() - began < 2
    for chat in many:
        chat["update_time"] = AT  # so that each has to be compared
    began = time.process_time()
    assert taken(chats, path, *many) == "0 new, 500 unchanged"
    assert time.process_time() - began < 4


def test_chats_of_earlier_versions_are_recognised(chats: Chats, tmp_path: Path) -> None:
    path = tmp_path / "conversations.json"
    taken(chats, path, gpt("c", "a", "b"))
    with chats.database.write() as connection:  # as they came in then
        connection.execute("DELETE FROM imported")
        connection.execute("UPDATE conversation SET origin = NULL")
        connection.execute("UPDATE message SET origin = NULL, run_id = NULL")
    assert taken(chats, path, gpt("c", "a", "b", "c")) == "0 new, 1 grown"


def test_nothing_odd_in_a_message_costs_the_others(chats: Chats, tmp_path: Path) -> None:
    path = tmp_path / "conversations.json"
    them: list[dict[str, Any]] = []
    whole: list[dict[str, Any]] = []
    for number, odd in enumerate(hostile_chats.VALUES):
        for key in ("message", "children", "parent"):
            chat = gpt(f"{number} {key}", "a", "b", "c")
            chat["mapping"]["n1"][key] = odd
            them.append(chat)
        for key in ("author", "content", "create_time", "recipient", "metadata"):
            chat = gpt(f"{number} {key}", "a", "b", "c")
            chat["mapping"]["n1"]["message"][key] = odd
            them.append(chat)
        for key in ("uuid", "sender", "text", "content", "created_at", "attachments", "files"):
            chat = claude(f"{number} {key}", "a", "b", "c")
            chat["chat_messages"][1][key] = odd
            them.append(chat)
        for key in ("id", "parent", "role", "content", "created_at", "attachments", "thinking"):
            chat = hostile_chats.ours(**{"content": f"{number} {key}", key: odd})["chats"][0]
            chat["messages"] += hostile_chats.ours(id="2", content="z")["chats"][0]["messages"]
            whole.append(chat)
    path.write_text(json.dumps(them))
    result = chats.import_(path)
    assert (len(result.new), result.left_out) == (len(them), [])
    path.write_text(json.dumps({"ondevice_chats": 1, "chats": whole}))
    mine = chats.import_(path)
    assert mine.left_out == [] and len(mine.new) + len(mine.grown) + mine.unchanged == len(whole)
    assert all(1971 <= heading.updated_at.year < 3000 for heading in chats.headings())
    chats.export_all([*result, *mine], tmp_path / "all.json")
    assert chats.import_(tmp_path / "all.json").unchanged == len(result) + len(mine)


def test_one_odd_chat_of_our_own_keeps_no_other_out(chats: Chats, tmp_path: Path) -> None:
    good = hostile_chats.ours()["chats"][0]
    for odd in (*hostile_chats.VALUES, {"title": "Odd", "messages": None}):
        data = {"ondevice_chats": 1, "chats": [odd, good]}
        (tmp_path / "a.json").write_text(json.dumps(data))
        (left_out,) = chats.import_(tmp_path / "a.json").left_out
        assert "hat 1 of a.json" in left_out
    assert left_out == "“Odd”: it has no messages (chat 1 of a.json)."
    assert len(chats.headings()) == 1
