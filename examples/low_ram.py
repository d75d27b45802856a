"""Run a model in less RAM than it has weights: python examples/low_ram.py MODEL.gguf 170

The limit is in MB. Half of the weights that are in RAM are given back while the reply is written:
it becomes slower, and its text stays the same.
"""

import sys

from ondevice import Chunk, Engine, Finished, Generate, Load, Sampling, Turn

QUESTION = "Write a short story about the sea."


def main(model: str, limit: str) -> None:
    turns = (Turn("user", QUESTION),)
    request = Generate(turns=turns, sampling=Sampling(temperature=0), max_tokens=30)
    with Engine() as engine:
        loaded = engine.load(Load(path=model, ram=int(limit) * 1_000_000))
        print(loaded.plan)
        for number, event in enumerate(engine.generate(request)):
            if isinstance(event, Chunk):
                print(event.text, end="", flush=True)
            if number == 10 and (sizing := engine.sizing):
                engine.resize(max(sizing.least_bytes, sizing.resident_bytes // 2))
            if isinstance(event, Finished) and (read := event.statistics.streaming):
                print(f"\n{read.bytes_read / 1e6:.0f} MB were read from the disk.")
        engine.resize(None)  # from now on it is for ondevice to choose again


if __name__ == "__main__":
    main(*sys.argv[1:])
