"""What the memory is worth in a chat: right answers about a month that a user told of, on and off.

month.json holds what an invented user typed in June 2024, thirty questions (four about things
never told) and twenty requests that have nothing to do with it. An answer is right when it has
the words that month.json gives; for what was never told, when it says that it does not know.
Needs qwen2.5-coder-1.5b-instruct-q4_k_m.gguf in the folder ONDEVICE_TEST_MODELS.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import frame

from ondevice.engine import Engine
from ondevice.engine.messages import Chunk, Generate, Load, Sampling, Turn
from ondevice.memory import Memory
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
    questions = MONTH["questions"][::3] if quick else MONTH["questions"]
    runs: frame.Runs = []
    with TemporaryDirectory(prefix="ondevice-bench-") as folder, Engine() as engine:
        memory = Memory(Database(Path(folder) / "store.db"))
        for day, text in MONTH["turns"]:
            memory.add(text, at=datetime.fromisoformat(day).replace(tzinfo=UTC))
        for path in frame.models(MODEL):
            engine.load(Load(path=str(path)))
            for question in questions:
                ask = question["ask"]
                # Four characters are about a token; the engine counts exactly.
                recalled = memory.recall(ask, budget=BUDGET, count_tokens=lambda t: len(t) // 4)
                notes = f"{recalled.text}\n\n" if recalled else ""
                with_memory, without = answer(engine, notes + ask), answer(engine, ask)
                runs.append(
                    {
                        "ask": ask,
                        "told": question["answer"] is not None,
                        "on": with_memory,
                        "off": without,
                        "on_right": right(with_memory, question["answer"]),
                        "off_right": right(without, question["answer"]),
                    }
                )
                frame.say(f"{ask}  {with_memory}")
        opened = [
            memory.recall(text, budget=BUDGET, count_tokens=len) is not None
            for text in MONTH["other"]
        ]
        memory.database.close()
    told = [run for run in runs if run["told"]]
    never = [run for run in runs if not run["told"]]
    figures = {"recalled_for_nothing": sum(opened) / len(opened)}
    for name, some in (("told", told), ("never_told", never)) if runs else ():
        figures[name] = float(len(some))
        for side in ("on", "off"):
            figures[f"{name}_right_{side}"] = float(sum(run[f"{side}_right"] for run in some))
    return figures, runs


def answer(engine: Engine, text: str) -> str:
    turns = (Turn("system", SYSTEM), Turn("user", text))
    request = Generate(turns=turns, sampling=Sampling(temperature=0), max_tokens=48)
    return "".join(e.text for e in engine.generate(request) if isinstance(e, Chunk))


def right(reply: str, expected: str | None) -> bool:
    if expected is None:
        return DOES_NOT_KNOW.search(reply) is not None
    return re.search(expected, reply, re.IGNORECASE) is not None


if __name__ == "__main__":
    frame.run(__doc__, measure)
