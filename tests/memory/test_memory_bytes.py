"""No file of ondevice has a byte of what was forgotten, or of what was said in private."""

from __future__ import annotations

from pathlib import Path

from ondevice import paths
from ondevice.chats import Attachment, Chats, reply
from ondevice.cli import run
from ondevice.engine import Engine
from ondevice.messages import Generate, Load, Sampling, Turn
from ondevice.store import Database, TransientDatabase
from ondevice.testing import FakeEngine

SECRET = "My zebra is called Zebulon and it sleeps in the xylotheque"
WORDS = (b"zebra", b"zebulon", b"xylotheq")


def files_with(folder: Path, words: tuple[bytes, ...]) -> set[str]:
    return {
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and any(word in file.read_bytes().lower() for word in words)
    }


def test_no_file_in_the_home_of_ondevice_keeps_a_byte(
    home: Path, default_model: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text(f"{SECRET} at night.")
    database = Database(paths.store_file())
    chats = Chats(database)
    first, second = chats.create(""), chats.create("")
    chats.say(first, SECRET)  # and the title of this chat
    parrot = FakeEngine([f"You said: {SECRET}."])
    parrot.load(Load(path="fake.gguf"))
    list(reply(chats, parrot, first, Sampling()))
    chats.say(second, "What is in the file?", [Attachment("notes.txt", f"Note: {SECRET}!")])
    assert chats.say(second, "Where does my zebulon sleep?", recall=300).recalled
    turns = (Turn("user", SECRET),)
    private = Chats(TransientDatabase())
    with Engine() as engine:  # whose log is in the home as well
        engine.load(Load(path=str(default_model), n_ctx=256, n_threads=1))
        list(engine.generate(Generate(turns=turns, max_tokens=2)))
        unspoken = private.create(private=True)
        private.say(unspoken, "Repeat: quahog", [Attachment("quahog.txt", "A quahog.")])
        list(reply(private, engine, unspoken, Sampling(temperature=0)))
    assert private.search("quahog")
    assert files_with(home, (b"quahog",)) == set()
    database.backup()
    assert run(["memory", "add", "--text", f"{SECRET}, remember"]) == 0
    assert run(["memory", "add", str(notes)]) == 0
    assert files_with(home, WORDS)

    chats.memory.forget([cube.id for cube in chats.memory.latest(limit=-1)])
    database.close()
    assert list(home.glob("log/*"))
    assert files_with(home, WORDS) == set()
