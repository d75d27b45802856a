"""What the memory is worth in a chat: right answers about a month that a user told of, on and off.

month.json holds what an invented user typed in June 2024, thirty questions (four about things
never told), ten more about things never told, twenty requests that have nothing to do with it, and
ten lessons with a request to try each on. An answer is right when it has the words that month.json
gives; for what was never told, when it says that it does not know; a lesson is obeyed when the
reply is as its pattern says. Needs qwen2.5-coder-1.5b-instruct-q4_k_m.gguf in the folder
ONDEVICE_TEST_MODELS.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import frame

from ondevice.engine import Engine
from ondevice.memory import Memory
from ondevice.messages import Chunk, Generate, Load, Sampling, Turn
from ondevice.store import Database

MODEL = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
MONTH = json.loads(Path(__file__).with_name("month.json").read_text("utf-8"))
SYSTEM = "You are a helpful assistant. Answer in one sentence. Say so if you do not know."
BUDGET = 300  # tokens of memories
DOES_NOT_KNOW = re.compile(
    r"don['’]t (?:know|have)|do not (?:know|have)|not (?:know|sure|mention|provide|specif|give)"
    r"|no (?:information|mention|record)|cannot|can['’]t|unable|unknown|never",
    re.IGNORECASE,
)


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    step = 3 if quick else 1
    questions = MONTH["questions"] + [{"ask": ask, "answer": None} for ask in MONTH["never"]]
    runs: frame.Runs = []
    with TemporaryDirectory(prefix="ondevice-bench-") as folder, Engine() as engine:
        memory = Memory(Database(Path(folder) / "store.db"))
        for day, text in MONTH["turns"]:
            memory.add(text, at=datetime.fromisoformat(day).replace(tzinfo=UTC))
        for path in frame.models(MODEL):
            engine.load(Load(path=str(path)))
            for question in questions[::step]:
                ask, expected = question["ask"], question["answer"]
                on, off = answer(engine, with_notes(memory, ask)), answer(engine, ask)
                runs.append(
                    {
                        "ask": ask,
                        "kind": "told" if expected else "never_told",
                        "on": on,
                        "off": off,
                        "on_right": right(on, expected),
                        "off_right": right(off, expected),
                    }
                )
                frame.say(f"{ask}  {on}")
            for number, lesson in enumerate(MONTH["lessons"][::step]):
                runs.append(taught(engine, Path(folder) / f"{number}.db", lesson))
        disturbed = [with_notes(memory, text) != text for text in MONTH["other"]]
        memory.database.close()
    figures = {"notes_for_nothing": sum(disturbed) / len(disturbed)}
    for kind in ("told", "never_told", "lesson") if runs else ():
        some = [run for run in runs if run["kind"] == kind]
        figures[kind] = float(len(some))
        for side in ("on", "off"):
            figures[f"{kind}_right_{side}"] = float(sum(run[f"{side}_right"] for run in some))
    return figures, runs


def with_notes(memory: Memory, ask: str) -> str:
    # Four characters are about a token; the engine counts exactly.
    recalled = memory.recall(ask, budget=BUDGET, count_tokens=lambda t: len(t) // 4)
    return recalled.prompt(ask) if recalled else ask


def taught(engine: Engine, store: Path, lesson: dict[str, str]) -> dict[str, object]:
    """A request after the lesson, and without it."""
    memory = Memory(Database(store))
    memory.add(lesson["told"])
    ask, obeyed = lesson["ask"], re.compile(lesson["obeyed"], re.DOTALL)
    on = answer(engine, with_notes(memory, ask), system="", most=160)
    off = answer(engine, ask, system="", most=160)
    memory.database.close()
    frame.say(f"{lesson['told']} {ask}  {on}")
    return {
        "ask": f"{lesson['told']} {ask}",
        "kind": "lesson",
        "on": on,
        "off": off,
        "on_right": obeyed.search(on) is not None,
        "off_right": obeyed.search(off) is not None,
    }


def answer(engine: Engine, text: str, *, system: str = SYSTEM, most: int = 48) -> str:
    turns = (*([Turn("system", system)] if system else []), Turn("user", text))
    request = Generate(turns=turns, sampling=Sampling(temperature=0), max_tokens=most)
    return "".join(e.text for e in engine.generate(request) if isinstance(e, Chunk))


def right(reply: str, expected: str | None) -> bool:
    if expected is None:
        return DOES_NOT_KNOW.search(reply) is not None
    return re.search(expected, reply, re.IGNORECASE) is not None


if __name__ == "__main__":
    frame.run(__doc__, measure)
