"""What is left of a forgotten text, and how well secrets are recognised.

Each text is put where the store can have one: in messages, memories, titles, system prompts, files
and drafts, as it was written, quoted and with other capitals. Then it is forgotten.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from memory_secrets import own_texts

from ondevice.chats import Attachment, Chats
from ondevice.memory._secrets import redact
from ondevice.store import Database

_TEXTS = Path(__file__).with_name("texts") / "memory_forgotten.json"


def measure(cases: Path | None, conversations: Path | None, quick: bool) -> dict[str, float]:
    """``forgotten_bytes``, ``others_emptied``, ``secrets_found`` and ``harmless_taken``."""
    del conversations, quick  # it takes seconds
    texts = json.loads(_TEXTS.read_text())
    figures = {
        "forgotten_bytes": float(sum(map(bytes_left, texts["told"]))),
        "others_emptied": float(sum(map(others_emptied, texts["ordinary"]))),
    }
    secret, harmless = own_texts()
    figures |= {
        "own_secrets_found": _share(secret),
        "own_harmless_taken": _share(harmless),
    }
    if cases is not None and (file := cases / "secrets.json").exists():
        given = json.loads(file.read_text())
        figures |= {
            "secrets_found": _share([case["text"] for case in given["secret"]]),
            "harmless_taken": _share(given["harmless"]),
        }
    return figures


def bytes_left(text: str) -> int:
    """How many bytes of the text are in files of the store once it is forgotten."""
    with TemporaryDirectory(prefix="ondevice-bench-") as folder:
        database = Database(Path(folder) / "store.db")
        chats = Chats(database)
        quoting = f"> {text}\nYou said so: {text} Was that right?"
        told = chats.memory.add(text).cube
        first = chats.say(own := chats.create(f"Know this: {text}"), text)
        chats.say(own, quoting, [Attachment("notes.txt", quoting)], instead_of=first.message_id)
        chats.say(other := chats.create(), f"Hello. {text.upper()}")
        chats.rename(other, text)
        note = chats.memory.add(quoting, tags=[text]).cube
        chats.memory.edit(note.id, "Something else")
        file = Path(folder) / "file.md"
        file.write_text(f"# A file\n\n{quoting}\n")
        chats.memory.add_file(file)
        file.unlink()
        database.backup()
        chats.memory.forget([told.id])
        database.close()
        return sum(
            len(text.encode()) * file.read_bytes().lower().count(text.lower().encode())
            for file in Path(folder).rglob("*")
            if file.is_file()
        )


def others_emptied(text: str) -> int:
    """How many messages of others change when a text is forgotten that says nothing."""
    with TemporaryDirectory(prefix="ondevice-bench-") as folder:
        database = Database(Path(folder) / "store.db")
        chats = Chats(database)
        told = chats.memory.add(text).cube
        other = f"{text}, the museum in Paris opens at ten"
        chats.say(chat := chats.create(), other)
        chats.memory.forget([told.id])
        kept = [message.content for message in chats.load(chat).messages] == [other]
        database.close()
        return not kept


def _share(texts: list[str]) -> float:
    """How many of these a secret is seen in, 0 … 1."""
    return sum(bool(redact(text)[1]) for text in texts) / len(texts)
