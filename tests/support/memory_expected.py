"""What a worker has acknowledged of its work on a memory, to be compared with what is there."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondevice.memory import Memory


@dataclass
class Expected:
    """What is acknowledged, and the one task that was begun and may be done or not."""

    texts: dict[int, list[str]] = field(default_factory=dict)  # cube → its versions, oldest first
    superseded: set[int] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)  # texts
    passphrase: str = ""
    begun: dict[str, Any] | None = None

    def read(self, event: dict[str, Any]) -> None:
        if "begin" in event:
            self.begun = event
        elif self.begun is not None:
            self._done(self.begun, event.get("ids", ()))

    def _done(self, task: dict[str, Any], added: list[int]) -> None:
        match task:
            case {"begin": "add", "texts": texts}:
                self.texts |= {cube: [text] for cube, text in zip(added, texts, strict=True)}
                self.superseded.update(task.get("instead", ()))
            case {"begin": "edit", "id": int(cube), "text": str(text)}:
                self.texts[cube].append(text)
            case {"begin": "forget", "ids": ids}:
                for cube in ids:
                    self.forgotten.update(self.texts.pop(cube, ()))  # a profile is not in it
            case {"begin": "rekey", "passphrase": str(passphrase)}:
                self.passphrase = passphrase
        self.begun = None

    def faults(self, memory: Memory, files: dict[str, bytes]) -> Counter[str]:
        """How often the memory is not what was acknowledged; empty when all is well."""
        self._settle(memory)
        count = Counter(unsound=len(memory.check()))
        there = [cube for cube in memory.latest(limit=-1) if cube.status != "deleted"]
        profiles = [cube for cube in there if cube.kind == "profile"]
        cubes = {cube.id: cube.status for cube in there if cube.kind != "profile"}
        count["lost"] += len(set(self.texts) - set(cubes))
        count["half_done"] += len(set(cubes) - set(self.texts))
        for cube_id in set(cubes).intersection(self.texts):
            known = memory.history(cube_id)
            texts = [*(version.content for version in known.versions), known.cube.content]
            acknowledged = self.texts[cube_id]
            count["lost"] += not set(acknowledged) <= set(texts)
            count["half_done"] += set(acknowledged) <= set(texts) and acknowledged != texts
            count["half_done"] += (cubes[cube_id] == "superseded") != (cube_id in self.superseded)
        for texts in list(self.texts.values())[-5:]:
            hits = memory.search(unique(texts[-1])).hits
            count["lost"] += not hits or unique(texts[-1]) not in hits[0].cube.content
        versions = sum(len(texts) - 1 for texts in self.texts.values())
        versions += sum(len(memory.history(profile.id).versions) for profile in profiles)
        count["half_done"] += memory.statistics().versions != versions
        words = [unique(text).encode() for text in self.forgotten]
        count["resurrected"] += sum(w in content for w in words for content in files.values())
        return +count

    def _settle(self, memory: Memory) -> None:
        """Find out whether the task that was begun has been done; either is right."""
        begun = self.begun or {}
        match begun:
            case {"begin": "add", "texts": texts}:
                ids = {cube.content: cube.id for cube in memory.latest(limit=-1)}
                if all(text in ids for text in texts):
                    self._done(begun, [ids[text] for text in texts])
            case {"begin": "edit", "id": int(cube_id), "text": str(text)}:
                if memory.history(cube_id).cube.content == text:
                    self._done(begun, [])
            case {"begin": "forget", "ids": ids}:
                if memory.history(ids[0]).cube.status == "deleted":
                    self._done(begun, [])
        self.begun = None


def unique(text: str) -> str:
    """The word that no other text has, but what was read from it."""
    (word,) = re.findall(r"unique\w+", text)
    return str(word)


def files_beside(store: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in store.parent.iterdir()}
