"""``ondevice chats`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hostile_chats
import pytest
from hostile_chats import chatgpt

from ondevice import paths
from ondevice.chats import Chats
from ondevice.cli import run
from ondevice.store import Database


def test_chats_come_in_and_go_out(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def said(*arguments: object, code: int = 0) -> tuple[str, str]:
        assert run(["chats", *map(str, arguments)]) == code
        out, error = capfd.readouterr()
        return out, error

    def found(*arguments: object) -> Any:
        return json.loads(said(*arguments, "--json")[0])

    path = tmp_path / "conversations.json"
    them = [chatgpt("A trip", "I live in Faro.", id="a"), chatgpt("Birds", id="b")]
    path.write_text(hostile_chats.chats(*them, chatgpt("Odd", mapping=None)))
    result = found("import", path, "--remember")
    assert (result["new"], result["remembered"], result["stopped"]) == (
        ["A trip", "Birds"],
        2,
        False,
    )
    odd = "“Odd”: it has no messages (chat 3 of conversations.json)."
    assert result["left_out"] == [odd]
    out, error = said("import", path)
    assert out == "Chats: 0 new, 2 unchanged, 1 left out.\n"
    assert error == f"Left out: {odd}\n"

    assert "A trip" in said("list")[0]
    numbers = {one["title"]: one["id"] for one in found("list")}
    out, _ = said("export", tmp_path / "all.json")
    assert out == f"2 chats in {tmp_path / 'all.json'}\n"
    said("export", tmp_path / "a.md", numbers["A trip"])
    assert "I live in Faro." in (tmp_path / "a.md").read_text()
    assert "already exists" in said("export", tmp_path / "a.md", numbers["Birds"], code=1)[1]
    said("export", tmp_path / "a.md", numbers["Birds"], "--force")
    said("export", tmp_path / "b.md", code=2)
    assert "There is no chat 99." in said("export", tmp_path / "b.md", 99, code=1)[1]
    (tmp_path / "no.txt").write_text("No chats")
    assert "it came in. no.txt: it does not" in said("import", tmp_path / "no.txt", code=1)[1]
    assert found("import", tmp_path / "all.json")["unchanged"] == 2

    database = Database(paths.store_file())
    Chats(database).delete(numbers["Birds"])
    database.close()
    out, error = said("import", path)
    assert "Deleted here: Birds\nAdd --deleted to restore" in error
    assert found("import", path, "--deleted")["new"] == ["Birds"]
    assert found("undo", "--yes")["removed"] == 1
    assert found("undo", "--yes") == {
        "name": "conversations.json",
        "removed": 1,
        "shrunk": 0,
        "kept": 0,
    }
    said("undo", code=1)
    assert found("list") == []
    assert run(["memory", "search", "Faro"]) == 0
    assert "Faro" not in capfd.readouterr().out
