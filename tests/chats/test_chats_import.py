"""Chats come in from whatever people have, or a sentence says why not; nothing hangs or grows."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import hostile_chats
import pytest
from hostile_chats import GOOD, NAME, chatgpt, claude, ours, zipped

from ondevice.chats import Chats
from ondevice.errors import FileError
from ondevice.store import Database

LIMIT_S = 20.0  # on a busy machine; none takes more than one on a quiet one


def taken(chats: Chats, path: Path) -> tuple[list[str], list[str]]:
    """Titles of what comes in, and what is said of the rest."""
    left_out: list[str] = []
    began = time.monotonic()
    ids = chats.import_(path, on_left_out=left_out.append)
    assert time.monotonic() - began < LIMIT_S
    return [chats.load(id_).title for id_ in ids], left_out


@pytest.mark.parametrize("kind", hostile_chats.REFUSED)
def test_what_cannot_be_read_is_refused_with_a_reason(
    chats: Chats, tmp_path: Path, kind: str
) -> None:
    data = hostile_chats.REFUSED[kind]()
    path = tmp_path / "file"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(FileError) as raised:
        taken(chats, path)
    assert str(path) in str(raised.value)
    assert chats.headings() == []


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")
@pytest.mark.parametrize("make", hostile_chats.NO_FILES)
def test_what_is_no_file_is_refused(
    chats: Chats, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "export")
    with pytest.raises(FileError, match="export"):
        taken(chats, tmp_path / "export")


@pytest.mark.parametrize("kind", hostile_chats.ODD)
def test_one_odd_chat_keeps_no_other_out(chats: Chats, tmp_path: Path, kind: str) -> None:
    path = tmp_path / NAME
    good = json.dumps(chatgpt())
    path.write_text(f"[{good}, {hostile_chats.ODD[kind]()}, {good}]")
    titles, left_out = taken(chats, path)
    assert titles.count(GOOD) >= 2
    for heading in chats.headings():
        assert 1971 <= heading.updated_at.astimezone().year < 3000
        assert len(heading.title) <= 200
        chats.export(heading.id, tmp_path / f"{heading.id}.json")
        chats.export(heading.id, tmp_path / f"{heading.id}.md")
    assert len(left_out) <= 1
    assert all(name in line for line in left_out for name in ["Chat 2"] if "“" not in line)


def test_what_is_left_out_is_named_by_its_title_or_place(chats: Chats, tmp_path: Path) -> None:
    path = tmp_path / NAME
    odd = [chatgpt("A trip", mapping={"a": 1}), {"title": 3, "mapping": 4}]
    path.write_text(hostile_chats.chats(*odd, chatgpt()) + "\n")
    titles, left_out = taken(chats, path)
    assert titles == [GOOD]
    assert left_out[0].startswith("“A trip”: ")
    assert left_out[1].startswith(f"Chat 2 of {NAME}: ")


def test_a_file_that_is_cut_gives_its_whole_chats(chats: Chats, tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text(hostile_chats.chats(chatgpt(), chatgpt("cut"))[:-40])
    titles, left_out = taken(chats, path)
    assert titles == [GOOD]
    assert left_out == [f"Chat 2 of {NAME}: the file ends in the middle of a chat."]


@pytest.mark.parametrize("year", ["0001", "9999", "1969", "3001"])
@pytest.mark.parametrize("zone", ["", "Z", "-14:00", "+14:00"])
def test_times_that_cannot_be_true_are_replaced(
    chats: Chats, tmp_path: Path, year: str, zone: str
) -> None:
    at = f"{year}-01-01T00:00:00{zone}" if year != "9999" else f"9999-12-31T23:59:59{zone}"
    path = tmp_path / NAME
    path.write_text(json.dumps(ours(created_at=at)))
    taken(chats, path)
    path.write_text(hostile_chats.chats(claude(created_at=at)))
    taken(chats, path)
    for heading in chats.headings():
        assert 1971 <= heading.updated_at.astimezone().year <= 3000
    # As imported by an earlier version:
    with chats.database.write() as connection:
        connection.execute("UPDATE conversation SET created_at = ?1, updated_at = ?1", (at,))
        connection.execute("UPDATE message SET created_at = ?", (at,))
    ids = [heading.id for heading in chats.headings()]
    assert all(heading.updated_at.astimezone() for heading in chats.headings())
    for id_ in ids:
        chats.export(id_, tmp_path / f"{id_}.json")
        chats.export(id_, tmp_path / f"{id_}.md")
    chats.remember(ids)
    chats.delete(ids[0])


SPLIT = {
    "conversations-000.json": hostile_chats.chats(chatgpt("0", id="x0"), chatgpt("1", id="x1")),
    "conversations-001.json": hostile_chats.chats(chatgpt("1", id="x1"), chatgpt("2", id="x2")),
    "conversations-010.json": hostile_chats.chats(chatgpt("3", id="x3")),
    "user.json": json.dumps({"id": "me", "email": "a@b.c"}),
    "shared_conversations.json": json.dumps([{"id": "s", "title": "shared"}]),
    "chat.html": "<html>",
}


@pytest.mark.parametrize("folder", ["", "export/", "a/b c/"])
@pytest.mark.parametrize("unpacked", [False, True])
def test_exports_in_several_files_come_in(
    chats: Chats, tmp_path: Path, folder: str, unpacked: bool
) -> None:
    path = tmp_path / "export.zip"
    path.write_bytes(zipped({folder + name: data for name, data in SPLIT.items()}))
    if unpacked:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "unpacked")
        path = tmp_path / "unpacked"
    titles, left_out = taken(chats, path)
    assert sorted(titles) == ["0", "1", "2", "3"]
    assert left_out == []


@pytest.mark.parametrize(
    "name", ["conversations_1.json", "Conversations.JSON", "x/conversations/42.json", "mine.json"]
)
def test_other_names_of_exports_come_in(chats: Chats, tmp_path: Path, name: str) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({name: hostile_chats.chats(claude())}))
    assert taken(chats, tmp_path / "a.zip") == ([GOOD], [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("chat", [chatgpt(), claude(), ours()])
def test_byte_order_marks_are_no_obstacle(
    chats: Chats, tmp_path: Path, encoding: str, chat: dict[str, object]
) -> None:
    text = json.dumps(chat if "ondevice_chats" in chat else [chat])
    (tmp_path / NAME).write_bytes(text.encode(encoding))
    assert taken(chats, tmp_path / NAME) == ([GOOD], [])


@pytest.mark.parametrize("other", ["", "/", "x.json/", "../", "a\\b"])
def test_members_with_odd_names_leave_the_others(chats: Chats, tmp_path: Path, other: str) -> None:
    name = "x" * len(other.encode())  # the module writes no such names
    data = zipped({NAME: hostile_chats.chats(claude()), name or "?": ""})
    data = data.replace((name or "?").encode(), other.encode()) if name else _nameless(data)
    (tmp_path / "a.zip").write_bytes(data)
    assert taken(chats, tmp_path / "a.zip") == ([GOOD], [])


def _nameless(data: bytes) -> bytes:
    """The archive with the name of its last member taken out of the directory."""
    at = data.rindex(b"PK\1\2")
    front, entry = data[:at], bytearray(data[at:])
    end = entry.index(b"PK\5\6")
    entry[28:30] = bytes(2)  # the length of the name
    del entry[46:47]
    size = end - 1 + at - data.index(b"PK\1\2")
    entry[end - 1 + 12 : end - 1 + 16] = size.to_bytes(4, "little")
    return front + bytes(entry)


def test_a_damaged_part_leaves_the_others(chats: Chats, tmp_path: Path) -> None:
    data = zipped({"conversations-0.json": hostile_chats.chats(chatgpt())})
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations-1.json", os.urandom(3000).hex())
        at = archive.infolist()[1].header_offset
    (tmp_path / "a.zip").write_bytes(hostile_chats.changed(file.getvalue(), at + 100, bytes(50)))
    titles, left_out = taken(chats, tmp_path / "a.zip")
    assert titles == [GOOD]
    assert left_out == ["conversations-1.json: the archive is damaged."]


def test_a_chat_far_too_large_is_left_out(chats: Chats, tmp_path: Path) -> None:
    path = tmp_path / NAME
    good = json.dumps(chatgpt())
    many = ",".join(["{}"] * 1_000_001)
    with path.open("w") as file:
        file.write(f'[{good}, {{"title": "Huge", "mapping": [{many}]}}, {good}]')
    titles, left_out = taken(chats, path)
    assert titles == [GOOD] * 2
    assert left_out == [f"Chat 2 of {NAME}: it is too large."]


def many_chats(path: Path, count: int) -> None:
    path.write_text(hostile_chats.chats(*(chatgpt(str(n), f"text {n}") for n in range(count))))


def test_an_import_lets_others_write_tells_how_far_it_is_and_can_be_cancelled(
    chats: Chats, tmp_path: Path
) -> None:
    many_chats(tmp_path / NAME, 3000)
    other = Chats(Database(tmp_path / "store.db"))
    counts: list[int] = []
    cancel = threading.Event()

    def on_progress(count: int) -> None:
        counts.append(count)
        other.create("in between")  # would wait for the end of one long transaction
        if len(counts) == 3:
            cancel.set()

    ids = chats.import_(tmp_path / NAME, on_progress, cancel)
    assert len(counts) in (3, 4)  # what had been read is still added
    assert len(ids) == counts[-1] < 3000
    assert all(chats.load(id_).messages for id_ in ids)
    other.database.close()


IMPORT = """
import sys
from pathlib import Path
from ondevice.chats import Chats
from ondevice.store import Database

chats = Chats(Database(Path(sys.argv[1])))
chats.import_(Path(sys.argv[2]), lambda count: print(count, flush=True))
"""


@pytest.mark.random
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_killed_import_leaves_whole_chats_only(
    tmp_path: Path, rounds: Callable[[int], Iterator[Random]]
) -> None:
    path = tmp_path / NAME
    path.write_text(
        json.dumps(
            [
                {**claude(str(n)), "chat_messages": claude(text=f"{n}")["chat_messages"] * 7}
                for n in range(2000)
            ]
        )
    )
    for number, random in enumerate(rounds(2)):
        store = tmp_path / str(number) / "store.db"
        command = [sys.executable, "-c", IMPORT, str(store), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(random.randrange(1, 4)):
                process.stdout.readline()
            time.sleep(random.random() * 0.05)
            process.send_signal(signal.SIGKILL)
        chats = Chats(Database(store))
        headings = chats.headings()
        assert headings
        assert {heading.messages for heading in headings} == {7}
        chats.database.close()


@pytest.mark.random
def test_damaged_exports_never_do_harm(
    chats: Chats, tmp_path: Path, rounds: Callable[[int], Iterator[Random]]
) -> None:
    texts = [
        hostile_chats.chats(*(chatgpt(f"t{n}", "wörter " * 30) for n in range(5))),
        hostile_chats.chats(*(claude(f"t{n}", "wörter " * 30) for n in range(5))),
        json.dumps(ours()),
    ]
    whole = [text.encode() for text in texts]
    whole += [zipped({"a/conversations-0.json": text, "b.txt": "x"}) for text in texts]
    pieces = [b'"', b"{", b"}", b"[", b"]", b"\\", b"null", b"1e999", b"\xff", b"\0", b"PK\1\2"]
    for random in rounds(60):
        data = bytearray(random.choice(whole))
        for _ in range(random.randrange(1, 6)):
            place = random.randrange(len(data))
            match random.randrange(4):
                case 0:
                    data[place] = random.randrange(256)
                case 1:
                    data[place:place] = random.choice(pieces)
                case 2:
                    del data[place : place + random.randrange(1, 200)]
                case 3:
                    data[place:place] = data[random.randrange(len(data)) :][:200]
            data = data or bytearray(b"x")
        path = tmp_path / "export"
        path.write_bytes(data)
        before = len(chats.headings())
        try:
            ids = chats.import_(path)
        except FileError:
            assert len(chats.headings()) == before
            continue
        for id_ in ids:
            chats.load(id_)
        again = chats.import_(path)
        assert not (again.new or again.grown)
        assert all(heading.updated_at.astimezone() for heading in chats.headings())
