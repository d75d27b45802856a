"""What a worker has acknowledged of its work on a memory, to be compared with what is there."""

from __future__ import annotations

from collections import Counter
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

    def faults(self, memory: Memory, files: dict[str, bytes]) -> Counter[str]:
        """How often the memory is not what was acknowledged; empty when all is well."""
        self._settle(memory)
        count = Counter(unsound=len(memory.check()))
        cubes = {cube.id for cube in memory.latest(limit=-1) if cube.status != "deleted"}
        count["lost"] += len(set(self.texts) - cubes)
        count["half_done"] += len(cubes - set(self.texts))
        for cube_id in cubes.intersection(self.texts):
            known = memory.history(cube_id)
            texts = [*(version.content for version in known.versions), known.cube.content]
            acknowledged = self.texts[cube_id]
            count["lost"] += not set(acknowledged) <= set(texts)
            count["half_done"] += set(acknowledged) <= set(texts) and acknowledged != texts
        for texts in list(self.texts.values())[-5:]:
            hits = memory.search(unique(texts[-1])).hits
            count["lost"] += not hits or unique(texts[-1]) not in hits[0].cube.content
        versions = sum(len(texts) - 1 for texts in self.texts.values())
        count["half_done"] += memory.statistics().versions != versions
        words = [unique(text).encode() for text in self.forgotten]
        count["resurrected"] += sum(w in content for w in words for content in files.values())
        return +count

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
