"""Chats go to files and come back whole; those of other services come in."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest

from ondevice.chats import Attachment, Chats, reply
from ondevice.errors import FileError
from ondevice.messages import Load, Sampling
from ondevice.testing import FakeEngine


def contents(chats: Chats, chat: int) -> list[str]:
    return [message.content for message in chats.load(chat).messages]


def test_a_chat_comes_back_from_json_with_all_its_branches(chats: Chats, tmp_path: Path) -> None:
    engine = FakeEngine(["Paris."], ["Rome."])
    engine.load(Load(path="fake.gguf"))
    chat = chats.create("Be kind.")
    file = Attachment("map.txt", "x\ny")
    first = chats.say(chat, "Capital of France?", [file]).message_id
    list(reply(chats, engine, chat, Sampling()))
    chats.say(chat, "Capital of Italy?", instead_of=first)
    list(reply(chats, engine, chat, Sampling()))
    chats.show(first)
    before = chats.load(chat)
    chats.export(chat, tmp_path / "chat.json")
    chats.delete(chat)

    (again,) = chats.import_(tmp_path / "chat.json")
    after = chats.load(again)
    assert (after.title, after.system) == (before.title, before.system)
    for old, new in zip(before.messages, after.messages, strict=True):
        assert (new.role, new.content, new.created_at) == (old.role, old.content, old.created_at)
        assert (new.model, new.finish_reason) == (old.model, old.finish_reason)
        assert (new.attachments, len(new.versions)) == (old.attachments, len(old.versions))
    chats.show(after.messages[0].versions[1])
    assert contents(chats, again) == ["Capital of Italy?", "Rome."]
    assert [hit.heading.id for hit in chats.search("Italy")] == [again]


def test_markdown_has_the_branch_that_is_shown(chats: Chats, tmp_path: Path) -> None:
    engine = FakeEngine(["It is **Paris**."])
    engine.load(Load(path="fake.gguf"))
    chat = chats.create()
    first = chats.say(chat, "Wrong").message_id
    chats.say(chat, "Capital of France?", instead_of=first)
    list(reply(chats, engine, chat, Sampling()))
    path = tmp_path / "chat.md"
    chats.export(chat, path)
    text = path.read_text()
    assert text.startswith("# Wrong\n\n## You, ")
    assert "\n\nCapital of France?\n\n## fake, " in text
    assert text.endswith("\n\nIt is **Paris**.\n")


def test_an_export_overwrites_nothing_and_is_private(chats: Chats, tmp_path: Path) -> None:
    chat = chats.create()
    chats.say(chat, "Hi")
    chats.export(chat, tmp_path / "chat.md")
    if os.name != "nt":
        assert (tmp_path / "chat.md").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileError, match="cannot be written"):
        chats.export(chat, tmp_path / "chat.md")


CHATGPT = [
    {
        "title": "Capitals",
        "create_time": 1700000000.5,
        "current_node": "d",
        "mapping": {
            "root": {"id": "root", "message": None, "parent": None, "children": ["s"]},
            "s": {
                "message": {"author": {"role": "system"}, "content": {"parts": [""]}},
                "parent": "root",
                "children": ["a"],
            },
            "a": {
                "message": {
                    "author": {"role": "user"},
                    "create_time": 1700000001,
                    "content": {"content_type": "text", "parts": ["France?", {"image": 1}]},
                },
                "parent": "s",
                "children": ["b", "d"],
            },
            "b": {
                "message": {"author": {"role": "assistant"}, "content": {"parts": ["Lyon."]}},
                "parent": "a",
                "children": [],
            },
            "d": {
                "message": {"author": {"role": "assistant"}, "content": {"parts": ["Paris."]}},
                "parent": "a",
                "children": ["e", "f", "g"],
            },
            "f": {
                "message": {
                    "author": {"role": "user"},
                    "content": {"parts": ["About the user: …"]},
                    "metadata": {"is_visually_hidden_from_conversation": True},
                },
                "parent": "d",
                "children": [],
            },
            "g": {
                "message": {
                    "author": {"role": "assistant"},
                    "content": {"parts": ["search('Paris')"]},
                    "recipient": "python",
                },
                "parent": "d",
                "children": [],
            },
            "e": {
                "message": {"author": {"role": "tool"}, "content": {"content_type": "code"}},
                "parent": "d",
                "children": [],
            },
        },
    }
]
CLAUDE = [
    {
        "uuid": "x",
        "name": "Capitals",
        "created_at": "2025-01-02T03:04:05.678901Z",
        "chat_messages": [
            {
                "sender": "human",
                "text": "France?",
                "created_at": "2025-01-02T03:04:05Z",
                "attachments": [{"file_name": "map.txt", "extracted_content": "a map"}],
            },
            {
                "sender": "assistant",
                "text": "",
                "content": [
                    {"type": "thinking", "thinking": "?"},
                    {"type": "text", "text": "Paris."},
                ],
                "created_at": "2025-01-02T03:04:06Z",
            },
        ],
    }
]


@pytest.mark.parametrize("service", ["chatgpt", "claude"])
@pytest.mark.parametrize("zipped", [False, True])
def test_exports_of_other_services_come_in(
    chats: Chats, tmp_path: Path, service: str, zipped: bool
) -> None:
    data = json.dumps(CHATGPT if service == "chatgpt" else CLAUDE)
    path = tmp_path / "export"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("conversations.json", data)
    else:
        path.write_text(data)
    (chat,) = chats.import_(path)
    conversation = chats.load(chat)
    assert conversation.title == "Capitals"
    assert [(m.role, m.content) for m in conversation.messages] == [
        ("user", "France?"),
        ("assistant", "Paris."),
    ]
    if service == "chatgpt":
        assert len(conversation.messages[1].versions) == 2
    else:
        assert conversation.messages[0].attachments == (Attachment("map.txt", "a map"),)
    assert not chats.memory.search("France").hits


@pytest.mark.parametrize("data", [b"", b"hello", b"[1]", b'{"a": 1}', b"PK\x03\x04", b"\xff"])
def test_what_is_no_export_is_refused_and_nothing_is_added(
    chats: Chats, tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(FileError):
        chats.import_(path)
    with pytest.raises(FileError):
        chats.import_(tmp_path / "missing")
    assert chats.headings() == []


def test_what_was_said_in_an_import_is_remembered_if_that_is_wanted(
    chats: Chats, tmp_path: Path
) -> None:
    path = tmp_path / "conversations.json"
    said = [
        ("Ana", "2024-05-01T10:00:00Z", "I live in Porto."),
        ("Old", "2021-02-03T10:00:00Z", ""),
    ]
    path.write_text(
        json.dumps(
            [
                {
                    "name": name,
                    "created_at": at,
                    "chat_messages": [
                        {"sender": "human", "text": text or "I live in Faro.", "created_at": at},
                        {"sender": "assistant", "text": "I live in Braga.", "created_at": at},
                    ],
                }
                for name, at, text in said
            ]
        )
    )
    ids = chats.import_(path)
    assert not chats.memory.search("live").hits
    counts: list[int] = []
    assert chats.remember(ids, counts.append) == 2
    assert counts == [1, 2]
    chats.remember(ids)  # again: nothing new
    found = {hit.cube.content: hit.cube for hit in chats.memory.search("live").hits}
    assert found["I live in Porto."].event_at.year == 2024
    assert found["I live in Faro."].event_at.year == 2021
    assert not [content for content in found if "Braga" in content]
    facts = {cube.content: cube.status for cube in found.values() if cube.kind == "fact"}
    assert sorted(facts.values()) == ["active", "superseded"], facts
