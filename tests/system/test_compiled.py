"""What is written in C."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondevice.system import compiled


def test_a_digest_tells_all_c_of_a_package_apart_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {}
    for name, source, header, other in (
        ("first", "1", "1", "1"),
        ("same", "1", "1", "2"),
        ("source", "2", "1", "1"),
        ("header", "1", "2", "1"),
    ):
        (folder := tmp_path / f"package_{name}").mkdir()
        for file, text in (("__init__.py", other), ("_a.c", source), ("_b.h", header)):
            (folder / file).write_text(text)
        found[name] = compiled.digest(folder.name)
    assert found["first"] == found["same"]
    assert len(set(found.values())) == 3
