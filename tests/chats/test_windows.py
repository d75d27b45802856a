"""What windows of the app have open is in the store for the next one; chats of any length go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from ondevice.chats import AppWindow, Chats, Tab


def test_the_next_window_has_what_was_open_however_the_last_one_ended(
    chats: Chats, tmp_path: Path
) -> None:
    chat = chats.create()
    tabs = [
        Tab(chat, draft="half", edited_id=3, beneath="typed before", pastes={"a": "x\ny"}),
        Tab(shown=True, draft="new"),
    ]
    program = (
        "import sys; from pathlib import Path; from ondevice.store import Database\n"
        "from ondevice.chats import AppWindow, Tab\n"
        "window = AppWindow(Database(Path(sys.argv[1]))); window.open()\n"
        f"window.keep({tabs!r}); print('kept', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "store.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    other.stdout.readline()
    beside = AppWindow(chats.database)
    assert beside.open() == []  # one is open, so this one begins with nothing
    beside.keep([Tab(chat, shown=True, draft="beside")])
    other.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    other.communicate()
    beside.close()
    window = AppWindow(chats.database)
    taken = window.open()
    assert sorted(taken, key=lambda tab: tab.draft) == sorted(
        [*tabs, Tab(chat, shown=True, draft="beside")], key=lambda tab: tab.draft
    )
    window.keep(tabs[1:])
    window.close()
    window = AppWindow(chats.database)
    assert window.open() == tabs[1:]
    assert len(list((tmp_path / "windows").iterdir())) == 1
    window.close()


def test_what_was_pasted_is_not_written_again_with_each_letter(chats: Chats) -> None:
    first, second = Tab(draft="a", pastes={"p": "long"}), Tab(draft="b", pastes={"q": "longer"})
    window = AppWindow(chats.database)
    window.open()
    window.keep([first, second])
    written: list[str] = []
    with chats.database.read() as connection:
        connection.set_trace_callback(written.append)
        window.keep([replace(first, draft="ab"), second])
        connection.set_trace_callback(None)
    assert "ab" in "".join(written)
    assert "long" not in "".join(written)
    for tabs in (
        [replace(first, pastes={"p": "another"}), second],  # under the same name
        [second, first],
        [first],
        [replace(first, pastes={})],
    ):
        window.keep(tabs)
        window.close()
        window = AppWindow(chats.database)
        assert window.open() == tabs
    window.close()


def test_a_draft_goes_with_its_chat_and_with_what_is_forgotten(
    chats: Chats, tmp_path: Path
) -> None:
    chat, other = chats.create(), chats.create()
    window = AppWindow(chats.database)
    window.open()
    secret = "The key lies under the Quagmire stone."
    kept = Tab(other, draft=f"> {secret}", pastes={"p": f"{secret} Xylophone"})
    window.keep([Tab(chat, draft="Zephyr is half typed", pastes={"p": "Bdellium"}), kept])
    chats.delete(chat)
    window.close()
    (cube,) = [chats.memory.add(secret).cube]
    chats.memory.forget([cube.id])
    window = AppWindow(chats.database)
    (tab,) = window.open()
    assert (tab.draft, tab.pastes) == ("> [forgotten]", {"p": "[forgotten] Xylophone"})
    window.keep([Tab(other)])
    window.close()
    folder = chats.database.path.parent
    kept_bytes = b"".join(file.read_bytes() for file in folder.iterdir() if file.is_file())
    assert not [w for w in (b"Zephyr", b"Bdellium", b"Quagmire") if w in kept_bytes]


def test_what_was_typed_to_a_chat_that_is_gone_is_kept(chats: Chats) -> None:
    chat = chats.create()
    window = AppWindow(chats.database)
    window.open()
    chats.delete(chat)
    window.keep([Tab(chat, draft="half")])
    window.close()
    window = AppWindow(chats.database)
    assert window.open() == [Tab(None, draft="half")]
    window.close()


def test_the_number_of_a_deleted_chat_is_not_given_to_another(chats: Chats) -> None:
    chat = chats.create()
    chats.delete(chat)
    assert chats.create() > chat


@pytest.mark.parametrize("reach", [1, 20, 10_000], ids=["chain", "branches", "star"])
def test_a_chat_of_any_length_is_deleted_for_good(chats: Chats, reach: int, tmp_path: Path) -> None:
    """Without going as deep as it is long, and with every word of it."""
    chat, other = chats.create(), chats.create()
    random = Random(reach)
    ids: list[int | None] = [None]
    with chats.database.write() as connection:
        for position in range(3000):
            parent = random.choice(ids[-reach:]) if reach < len(ids) else ids[0]
            row = connection.execute(
                "INSERT INTO message (conversation_id, parent_id, position, role, content, "
                "created_at) VALUES (?, ?, ?, 'user', ?, '2026-01-01') RETURNING id",
                (chat, parent, position, f"zebra{position % 50} crossing"),
            ).fetchone()
            ids.append(row[0])
    chats.say(other, "A crossing stays.")
    chats.delete(chat)
    assert [found.heading.id for found in chats.search("crossing")] == [other]
    assert not chats.search("zebra7")
    assert chats.database.damage() == []
    files = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
    assert b"zebra" not in files
