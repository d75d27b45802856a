"""Files that a chat import must survive: each is written by a small function, by its name."""

from __future__ import annotations

import copy
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

GOOD = "A good chat"
NAME = "conversations.json"


def chatgpt(title: object = GOOD, text: str = "Hello there", **changes: Any) -> dict[str, Any]:
    """A chat of ChatGPT with one message, and with other fields for those that are named."""
    message = {
        "author": {"role": "user"},
        "content": {"content_type": "text", "parts": [text]},
        "create_time": 1700000000.0,
    }
    return {
        "title": title,
        "create_time": 1700000000.0,
        "current_node": "a",
        "mapping": {"a": {"id": "a", "message": message, "parent": None, "children": []}},
        **changes,
    }


def claude(title: str = GOOD, text: str = "Hello there", **changes: Any) -> dict[str, Any]:
    at = "2025-01-02T03:04:05Z"
    message = {"sender": "human", "text": text, "created_at": at, **changes}
    return {"name": title, "created_at": at, "chat_messages": [message]}


def ours(**changes: Any) -> dict[str, Any]:
    at = "2025-01-02T03:04:05Z"
    entry = {"id": "1", "role": "user", "content": "Hello there", "created_at": at, **changes}
    chat = {"title": GOOD, "created_at": changes.get("created_at", at), "messages": [entry]}
    return {"ondevice_chats": 1, "chats": [chat]}


def zipped(members: Mapping[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def chats(*them: Any) -> str:
    return json.dumps(list(them))


def changed(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def _zip() -> bytes:
    return zipped({NAME: chats(chatgpt())})


def _central(data: bytes) -> int:
    return data.index(b"PK\1\2")


def _flagged() -> bytes:
    """As with a password: in both headers."""
    data = changed(_zip(), 6, b"\1\0")
    return changed(data, _central(data) + 8, b"\1\0")


def _method(number: int) -> bytes:
    data = changed(_zip(), 8, struct.pack("<H", number))
    return changed(data, _central(data) + 10, struct.pack("<H", number))


def _bomb(n_bytes: int) -> bytes:
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(NAME, "w", force_zip64=True) as member,
    ):
        member.write(b"[")
        for _ in range(n_bytes >> 20):
            member.write(b" " * (1 << 20))
    return file.getvalue()


def _circle() -> dict[str, Any]:
    chat = chatgpt("A circle")
    node = chat["mapping"]["a"]
    chat["mapping"] = {
        "a": {**node, "parent": "b", "children": ["b"]},
        "b": {**copy.deepcopy(node), "parent": "a", "children": ["a"]},
    }
    chat["current_node"] = "elsewhere"
    return chat


def _deep(n: int) -> str:
    nested = "[" * n + "]" * n
    return json.dumps(chatgpt("Deep", "PARTS")).replace('"PARTS"', nested)


def _node(**changes: Any) -> dict[str, Any]:
    chat = chatgpt("Odd")
    chat["mapping"]["a"].update(changes)
    return chat


def _message(**changes: Any) -> dict[str, Any]:
    chat = chatgpt("Odd")
    chat["mapping"]["a"]["message"].update(changes)
    return chat


#: Nothing of these can be read: an error that says so, nothing is added.
REFUSED: dict[str, Callable[[], bytes | str]] = {
    "password": _flagged,
    "unknown method": lambda: _method(77),
    "lzma that is deflated": lambda: _method(zipfile.ZIP_LZMA),
    "lzma": lambda: zipped({NAME: chats(chatgpt())}, zipfile.ZIP_LZMA),
    "bzip2": lambda: zipped({NAME: chats(chatgpt())}, zipfile.ZIP_BZIP2),
    "damaged deflate": lambda: changed(_zip(), 45, b"\xff" * 30),
    "wrong checksum": lambda: changed(_zip(), _central(_zip()) + 16, b"\0\0\0\0"),
    "bad offset": lambda: changed(_zip(), _central(_zip()) + 42, b"\xff\xff\xff\x7f"),
    "offset of list": lambda: changed(_zip(), len(_zip()) - 6, b"\xff\xff\xff\x7f"),
    "no end": lambda: _zip()[:-10],
    "half": lambda: _zip()[: len(_zip()) // 2],
    "only a beginning": lambda: b"PK\3\4",
    "long list": lambda: changed(_zip(), len(_zip()) - 10, b"\xff\xff\xff\x7e"),
    "empty archive": lambda: zipped({}),
    "archive of others": lambda: zipped({"photo.png": b"x"}),
    "folder called so": lambda: zipped({"conversations.json/": b""}),
    "bomb": lambda: _bomb(300 << 20),
    "empty": lambda: b"",
    "blanks": lambda: b" " * 100_000,
    "zeros": lambda: bytes(100_000),
    "text": lambda: "hello",
    "binary": lambda: bytes(range(256)) * 100,
    "number": lambda: "1",
    "null": lambda: "null",
    "string": lambda: '"' + "x" * 100_000,
    "empty list": lambda: "[]",
    "numbers": lambda: "[1, 2]",
    "other objects": lambda: '[{"a": 1}]',
    "brackets": lambda: "[" * 1_000_000,
    "braces": lambda: '{"a":' * 300_000,
    "closing": lambda: "[]]]]" + chats(chatgpt()),
    "newer ondevice": lambda: json.dumps({"ondevice_chats": 2, "chats": []}),
    "mapping of null": lambda: chats(chatgpt(mapping=None)),
    "cut in the first": lambda: chats(chatgpt())[:-30],
}

#: These chats come in beside a good one, or are left out and named; the good one comes in.
ODD: dict[str, Callable[[], str]] = {
    "deep": lambda: _deep(100_000),
    "deep, a little": lambda: _deep(900),
    "circle": lambda: json.dumps(_circle()),
    "own parent": lambda: json.dumps(_node(parent="a", children=["a"])),
    "parent elsewhere": lambda: json.dumps(_node(parent="nowhere", children=["nowhere"])),
    "no children": lambda: json.dumps(_node(children=None)),
    "numbers as children": lambda: json.dumps(_node(children=[1])),
    "end elsewhere": lambda: json.dumps(chatgpt("Odd", current_node="nowhere")),
    "end is a number": lambda: json.dumps(chatgpt("Odd", current_node=1)),
    "no mapping": lambda: json.dumps(chatgpt("Odd", mapping={})),
    "list as mapping": lambda: json.dumps(chatgpt("Odd", mapping=[])),
    "title of null": lambda: json.dumps(chatgpt(title=None)),
    "title is a number": lambda: json.dumps(chatgpt(title=1)),
    "long title": lambda: json.dumps(chatgpt("x" * 1_000_000)),
    "time 1e30": lambda: json.dumps(chatgpt("Odd", create_time=1e30)),
    "time -1e30": lambda: json.dumps(chatgpt("Odd", create_time=-1e30)),
    "time before": lambda: json.dumps(chatgpt("Odd", create_time=-1e11)),
    "time in milliseconds": lambda: json.dumps(_message(create_time=1700000000000)),
    "time is a text": lambda: json.dumps(_message(create_time="yesterday")),
    "time is NaN": lambda: json.dumps(chatgpt("Odd", create_time=float("nan"))),
    "time of 400 digits": lambda: json.dumps(chatgpt("Odd", create_time=10**400)),
    "time is a list": lambda: json.dumps(chatgpt("Odd", create_time=[])),
    "no author": lambda: json.dumps(_message(author=None)),
    "role of null": lambda: json.dumps(_message(author={"role": None})),
    "no content": lambda: json.dumps(_message(content=None)),
    "parts of null": lambda: json.dumps(_message(content={"parts": None})),
    "parts are a text": lambda: json.dumps(_message(content={"parts": "x"})),
    "half a character": lambda: json.dumps(chatgpt("Odd", "TEXT")).replace("TEXT", "\\ud800"),
    "NUL": lambda: json.dumps(chatgpt("Odd\0", "a\0b")),
    "escapes": lambda: json.dumps(chatgpt("\x1b]0;x\x07", "\x1b[2J")),
    "nodes": lambda: json.dumps(chatgpt("Odd", mapping={str(n): {} for n in range(50_000)})),
    "number": lambda: "7",
    "null": lambda: "null",
    "string": lambda: '"a \\"{[ string"',
    "empty object": lambda: "{}",
    "wrong brackets": lambda: '{"title": "Odd", "mapping": [}]',
}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def nothing(path: Path) -> None:
    """A name without a file."""


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def two_gigabytes(path: Path) -> None:
    """Of zeros, that take no room."""
    with path.open("wb") as file:
        file.truncate(2 << 30)


def empty_folder(path: Path) -> None:
    path.mkdir()


def folder_with_a_pipe(path: Path) -> None:
    path.mkdir()
    os.mkfifo(path / NAME)


NO_FILES = (fifo, nothing, zeros, two_gigabytes, empty_folder, folder_with_a_pipe)

#: What may stand in place of any value.
VALUES: tuple[Any, ...] = (
    None, True, 0, -1e12, 1e20, 1e999, "", "x", "2025-01-02T03:04:05", "\ud800", [], [None], ["x"],
    [{}], {}, {"x": []}, [[[]]], 10**30, float("nan"), "critic", [{"name": 1, "file_name": []}],
)  # fmt: skip
