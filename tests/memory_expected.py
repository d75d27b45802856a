"""What a worker has acknowledged of its work on a memory, to be compared with what is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondevice.memory import Memory


@dataclass
class Expected:
    """What is acknowledged, and the one task that was begun and may be done or not."""

    texts: dict[int, list[str]] = field(default_factory=dict)  # cube → its versions, oldest first
    forgotten: set[str] = field(default_factory=set)
    passphrase: str = ""
    begun: dict[str, Any] | None = None

    def read(self, event: dict[str, Any]) -> None:
        match event:
            case {"begin": _}:
                self.begun = event
                return
            case {"done": "add" | "edit", "id": int(cube), "text": str(text)}:
                self.texts.setdefault(cube, []).append(text)
            case {"done": "forget", "id": int(cube)}:
                self.forgotten.update(self.texts.pop(cube))
            case {"done": "rekey", "passphrase": str(passphrase)}:
                self.passphrase = passphrase
        self.begun = None

    def compare(self, memory: Memory) -> None:
        """Fail unless the memory is sound and has all that was acknowledged and nothing else."""
        self._settle(memory)
        assert memory.check() == []
        cubes = {cube.id for cube in memory.latest(limit=-1) if cube.status != "deleted"}
        assert cubes == set(self.texts)
        for cube_id, texts in self.texts.items():
            known = memory.history(cube_id)
            assert [*(v.content for v in known.versions), known.cube.content] == texts
        for texts in list(self.texts.values())[-5:]:
            assert unique(texts[-1]) in memory.search(unique(texts[-1])).hits[0].cube.content
        versions = sum(len(texts) - 1 for texts in self.texts.values())
        assert memory.statistics().versions == versions

    def assert_forgotten(self, files: dict[str, bytes]) -> None:
        """Fail if a file has a text that is forgotten."""
        for text in self.forgotten:
            for name, content in files.items():
                assert unique(text).encode() not in content, name

    def _settle(self, memory: Memory) -> None:
        """Find out whether the task that was begun has been done; either is right."""
        match self.begun:
            case {"begin": "add", "text": str(text)}:
                for cube in memory.latest(limit=1):
                    if cube.content == text:
                        self.texts[cube.id] = [text]
            case {"begin": "edit", "id": int(cube_id), "text": str(text)}:
                if memory.history(cube_id).cube.content == text:
                    self.texts[cube_id].append(text)
            case {"begin": "forget", "id": int(cube_id)}:
                if memory.history(cube_id).cube.status == "deleted":
                    self.forgotten.update(self.texts.pop(cube_id))
        self.begun = None


def unique(text: str) -> str:
    """The word that no other text has."""
    return text.rsplit(maxsplit=1)[-1]


def files_beside(store: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in store.parent.iterdir()}
