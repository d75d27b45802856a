"""Keep a private memory, and give a model what helps it: python examples/memory.py MODEL.gguf"""

import sys
import tempfile
from pathlib import Path

from ondevice import Chunk, Engine, Generate, Load, Measure, Sampling, Turn
from ondevice.memory import Memory, with_memories
from ondevice.store import Database

QUESTION = "What is my dog called?"


def main(model: str, store: Path) -> None:
    database = Database(store)
    memory = Memory(database)
    memory.add("My dog is called Biscuit.")
    memory.add("The spare key is under the blue flower pot.")
    for hit in memory.search("Where is the key?", limit=1).hits:
        print("Found:", hit.cube.content)

    with Engine() as engine:
        engine.load(Load(path=model))

        def count(text: str) -> int:
            return engine.measure(Measure(texts=(text,))).texts[0]

        recalled = memory.recall(QUESTION, budget=300, count_tokens=count)
        prompt = QUESTION
        if recalled:  # None: nothing in the memory helps
            prompt = with_memories(QUESTION, recalled.cubes, unknown=recalled.unknown)
        request = Generate(
            turns=(Turn("user", prompt),), sampling=Sampling(temperature=0), max_tokens=40
        )
        for event in engine.generate(request):
            if isinstance(event, Chunk):
                print(event.text, end="")
    print()
    memory.forget([hit.cube.id for hit in memory.search("Where is the key?", limit=1).hits])
    print("Left:", *(cube.content for cube in memory.latest(kind="note", status="active")))
    database.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1], Path(folder) / "store.db")
