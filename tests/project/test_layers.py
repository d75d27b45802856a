"""The house: every import points down, from one floor to a lower one, and no two in a circle."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: From the ground up. What is on one floor knows nothing of its neighbours there.
FLOORS = (
    {"errors"},
    {"paths", "text", "markup", "network"},
    {"messages", "checking", "json_schema", "system", "gguf", "store"},
    {"ram", "disk", "llama", "memory", "testing"},
    {"products"},
    {"holding", "config"},
    {"models"},
    {"planning"},
    {"engine"},
    {"ondevice", "chats", "server"},
    {"tui"},
    {"cli"},
    {"__main__"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, Path]:
    files = (file for top in ("ondevice", "tui") for file in (ROOT / top).rglob("*.py"))
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in files
    }


MODULES = modules()


def imports(file: Path) -> set[str]:
    """The modules of ours that it imports: also within a function, but not for types alone."""
    found = set()
    tree = ast.parse(file.read_text("utf-8"))
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                found.add(inside if inside in MODULES else node.module)
    return found & MODULES.keys()


def room(module: str) -> str:
    top, *inside = module.split(".")
    return inside[0] if inside and top == "ondevice" else top


def test_every_import_points_down() -> None:
    up = [
        f"{module} imports {other}"
        for module, file in MODULES.items()
        for other in imports(file)
        if room(other) != room(module) and FLOOR[room(other)] >= FLOOR[room(module)]
    ]
    assert up == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter({module: imports(file) for module, file in MODULES.items()}).prepare()
