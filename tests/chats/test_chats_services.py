"""What other services keep in a chat comes along: code, canvas, artifacts, branches, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hostile_chats import zipped

from ondevice.chats import Attachment, Chat, Chats


def taken(chats: Chats, tmp_path: Path, *them: Any) -> list[Chat]:
    (tmp_path / "conversations.json").write_text(json.dumps(list(them)))
    return [chats.load(id_) for id_ in chats.import_(tmp_path / "conversations.json")]


def chatgpt(*messages: dict[str, Any]) -> dict[str, Any]:
    """The messages one after the other."""
    mapping = {
        f"n{place}": {
            "message": {"create_time": 1_700_000_000 + place, **message},
            "parent": f"n{place - 1}" if place else None,
            "children": [f"n{place + 1}"] if place + 1 < len(messages) else [],
        }
        for place, message in enumerate(messages)
    }
    end = f"n{len(messages) - 1}"
    return {"id": "c", "title": "Work", "mapping": mapping, "current_node": end}


def text(role: str, *parts: Any, **others: Any) -> dict[str, Any]:
    kind = "text" if all(isinstance(part, str) for part in parts) else "multimodal_text"
    content = {"content_type": kind, "parts": list(parts)}
    return {"author": {"role": role}, "content": content, **others}


def code(language: str, source: str, to: str) -> dict[str, Any]:
    content = {"content_type": "code", "language": language, "text": source}
    return {"author": {"role": "assistant"}, "content": content, "recipient": to}


def tool(name: str, content: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"author": {"role": "tool", "name": name}, "content": content, "metadata": metadata}


MARKS = {
    "Paris\ue200cite\ue202turn0search0\ue202turn1view2\ue201.": "Paris.",
    "Paris citeturn0search0turn0news12.": "Paris.",
    "Paris.citeturn0search0": "Paris.",
    "Paris【12†source】 is big 【4:0†report.pdf】.": "Paris is big.",
    "Paris :contentReference[oaicite:0]{index=0}.": "Paris.",
    "See \ue200url\ue202Le Monde\ue202https://lemonde.fr\ue201.": (
        "See [Le Monde](https://lemonde.fr)."
    ),
    'In \ue200entity\ue202["city","Paris","capital"]\ue201 it rains.': "In Paris it rains.",
    "\ue200image_group\ue202{}\ue201Here.": "Here.",
    "\ue203Here\ue204\ue206.": "Here.",
    "[the table](sandbox:/mnt/data/t.csv)": "the table [file t.csv]",
    "We cite 3 turns; 【note】 stays.": "We cite 3 turns; 【note】 stays.",
}


@pytest.mark.parametrize("marked", MARKS)
def test_marks_of_citations_go(chats: Chats, tmp_path: Path, marked: str) -> None:
    (chat,) = taken(chats, tmp_path, chatgpt(text("user", marked), text("assistant", marked)))
    assert [m.content for m in chat.messages] == [marked, MARKS[marked]]


def test_code_its_output_and_pictures_come_along(chats: Chats, tmp_path: Path) -> None:
    (chat,) = taken(
        chats,
        tmp_path,
        text("system", ""),
        chatgpt(
            text("system", ""),
            text("user", "Plot it"),
            {
                "author": {"role": "assistant"},
                "content": {
                    "content_type": "thoughts",
                    "thoughts": [{"summary": "Plotting", "content": "I plot."}],
                },
            },
            text("assistant", "Let me see."),
            code("unknown", '{"query": "plots"}', "web.run"),
            tool("web", {"content_type": "text", "parts": ["a page"]}),
            code("python", "print('```')", "python"),
            tool(
                "python",
                {"content_type": "execution_output", "text": "```"},
                aggregate_result={"messages": [{"message_type": "image", "image_url": "x"}]},
            ),
            text("assistant", "There.", metadata={"model_slug": "gpt-4o"}),
            text("user", "Thanks"),
        ),
    )
    asked, answer, thanks = chat.messages
    assert (asked.content, thanks.content) == ("Plot it", "Thanks")
    assert answer.content == (
        "Let me see.\n\n````python\nprint('```')\n````\n\nOutput:\n\n````\n```\n````\n\n"
        "[picture]\n\nThere."
    )
    assert (answer.thinking, answer.model) == ("Plotting\nI plot.", "gpt-4o")


def test_a_canvas_comes_along(chats: Chats, tmp_path: Path) -> None:
    made = {"name": "Poem", "type": "document", "content": "Roses"}
    program = {"name": "run.py", "type": "code/python", "content": "x = 1"}
    changed = {"updates": [{"pattern": ".*", "multiple": False, "replacement": "x = 2"}]}
    (chat,) = taken(
        chats,
        tmp_path,
        chatgpt(
            text("user", "Write"),
            code("json", json.dumps(made), "canmore.create_textdoc"),
            tool("canmore.create_textdoc", {"content_type": "text", "parts": ["done"]}),
            text("assistant", "Written."),
            text("user", "And"),
            text("assistant", json.dumps(program), recipient="canmore.create_textdoc"),
            text("user", "2"),
            code("json", json.dumps(changed), "canmore.update_textdoc"),
        ),
    )
    assert [m.content for m in chat.messages[1::2]] == [
        "Poem:\n\n```markdown\nRoses\n```\n\nWritten.",
        "run.py:\n\n```python\nx = 1\n```",
        "Canvas:\n\n```\nx = 2\n```",
    ]


def test_pictures_recordings_and_files_leave_a_word(chats: Chats, tmp_path: Path) -> None:
    picture = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"}
    spoken = {"content_type": "audio_transcription", "text": "Hello"}
    recording = {"content_type": "audio_asset_pointer"}
    files = [
        {"name": "report.pdf", "mime_type": "application/pdf"},
        {"name": "a.png", "mime_type": "image/png"},
    ]
    (chat,) = taken(
        chats,
        tmp_path,
        chatgpt(
            text("user", picture),
            text("assistant", "A cat."),
            text("user", picture, "And this?", metadata={"attachments": files}),
            tool("dalle.text2im", {"content_type": "multimodal_text", "parts": [picture]}),
            text("assistant", "So."),
            text("user", spoken, recording),
            text("assistant", recording),
        ),
    )
    assert [m.content for m in chat.messages] == [
        "[picture]",
        "A cat.",
        "[picture]\n\nAnd this?\n\n[file report.pdf]",
        "[picture]\n\nSo.",
        "Hello",
        "[audio]",
    ]


def test_a_reply_that_branches_in_the_middle(chats: Chats, tmp_path: Path) -> None:
    chat = chatgpt(text("user", "a"), text("assistant", "b"), text("assistant", "c"))
    chat["mapping"]["x"] = {"message": text("assistant", "d"), "parent": "n1", "children": []}
    (found,) = taken(chats, tmp_path, chat)
    assert [m.content for m in found.messages] == ["a", "b", "c"]
    assert len(found.messages[2].versions) == 2


def test_group_chats_and_shared_ones(chats: Chats, tmp_path: Path) -> None:
    chat = {**chatgpt(text("user", "Hi all")), "title": "Group"}
    shared = [{"id": "s", "conversation_id": "c", "title": "Work"}]
    files = {
        "group_chats.json": json.dumps({"chats": [chat]}),
        "shared_conversations.json": json.dumps(shared),
        "conversations-000.json": json.dumps([{**chat, "id": "d", "title": "One"}]),
        "conversations-001.json": json.dumps([{**chat, "id": "e", "title": "Two"}]),
    }
    (tmp_path / "a.zip").write_bytes(zipped(files))
    assert sorted(chats.import_(tmp_path / "a.zip").new) == ["Group", "One", "Two"]
    (tmp_path / "b.zip").write_bytes(zipped({**files, "group_chats.json": '{"chats": []}'}))
    assert str(chats.import_(tmp_path / "b.zip")) == "0 new, 2 unchanged"


def claude(*messages: dict[str, Any], **others: Any) -> dict[str, Any]:
    at = "2025-01-02T03:04:05Z"
    them = [{"created_at": at, **message} for message in messages]
    return {"uuid": "c", "name": "Work", "created_at": at, "chat_messages": them, **others}


def said(key: str, parent: str, sender: str, *content: dict[str, Any] | str) -> dict[str, Any]:
    blocks = [{"type": "text", "text": b} if isinstance(b, str) else b for b in content]
    return {"uuid": key, "parent_message_uuid": parent, "sender": sender, "content": blocks}


NONE = "00000000-0000-4000-8000-000000000000"


def test_branches_of_claude_are_branches(chats: Chats, tmp_path: Path) -> None:
    (chat,) = taken(
        chats,
        tmp_path,
        claude(
            said("1", NONE, "human", "a"),
            said("2", "1", "assistant", "b"),
            said("3", "2", "human", "c"),
            said("4", "3", "assistant", "d"),
            said("5", "2", "human", "c2"),
            said("6", "5", "assistant", "d2"),
            said("7", NONE, "human", "a2"),
            current_leaf_message_uuid="6",
        ),
    )
    assert [m.content for m in chat.messages] == ["a", "b", "c2", "d2"]
    assert [len(m.versions) for m in chat.messages] == [2, 1, 2, 1]
    chats.show(chat.messages[2].versions[0])
    assert [m.content for m in chats.load(chat.id).messages] == ["a", "b", "c", "d"]


def test_artifacts_thinking_and_files_of_claude_come_along(chats: Chats, tmp_path: Path) -> None:
    def artifact(**given: Any) -> dict[str, Any]:
        return {"type": "tool_use", "name": "artifacts", "input": {"id": "x", **given}}

    made = artifact(command="create", title="Sum", language="python", content="a + b")
    asked = {
        **said("1", NONE, "human", "Write"),
        "attachments": [{"file_name": "n.txt", "extracted_content": "notes"}],
        "files": [{"file_name": "n.txt"}, {"file_name": "cat.PNG"}, {"file_name": "r.docx"}],
    }
    old = '<antThinking>hm</antThinking>So:\n<antArtifact identifier="i" title="T">x</antArtifact>'
    (chat,) = taken(
        chats,
        tmp_path,
        claude(
            asked,
            said("2", "1", "assistant", {"type": "thinking", "thinking": "I see."}, "Here", made),
            said("3", "2", "human", "Minus"),
            said("4", "3", "assistant", artifact(command="update", old_str="+", new_str="-")),
            said("5", "4", "human", "Old"),
            {**said("6", "5", "assistant"), "text": old},
        ),
    )
    first, second, _, fourth, _, sixth = chat.messages
    assert first.content == "Write\n\n[picture]\n\n[file r.docx]"
    assert first.attachments == (Attachment("n.txt", "notes"),)
    assert second.content == "Here\n\nSum:\n\n```python\na + b\n```"
    assert second.thinking == "I see."
    assert fourth.content == "Artifact, changed:\n\n```\na - b\n```"
    assert sixth.content == "So:\nT:\n\n```\nx\n```"


def test_chats_of_open_webui_come_in(chats: Chats, tmp_path: Path) -> None:
    messages = {
        "1": {"role": "user", "content": "Hi", "parentId": None, "timestamp": 1_700_000_000},
        "2": {"role": "assistant", "content": "No", "parentId": "1", "model": "llama3"},
        "3": {
            "role": "assistant",
            "content": '<details type="reasoning" done="true">\n<summary>Thought</summary>\n> Hm.'
            "\n</details>\nYes",
            "parentId": "1",
        },
    }
    inner = {"history": {"messages": messages, "currentId": "3"}}
    (chat,) = taken(chats, tmp_path, {"id": "c", "title": "Work", "chat": inner})
    assert [m.content for m in chat.messages] == ["Hi", "Yes"]
    assert chat.messages[1].thinking == "Hm."
    assert len(chat.messages[1].versions) == 2
