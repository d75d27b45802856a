"""See how a model is run within some limits of RAM: python examples/plan.py MODEL.gguf 150 300

Limits are in MB. ``ondevice plan`` shows the same without loading anything.
"""

import sys

from ondevice import Engine, Load, MemoryShortError


def main(model: str, *limits: str) -> None:
    with Engine() as engine:
        for limit in limits:
            try:
                loaded = engine.load(Load(path=model, ram=int(limit) * 1_000_000))
            except MemoryShortError as error:
                print(f"{limit} MB: {error}")
                continue
            print(f"{limit} MB: {loaded.plan}")
            if expected := loaded.expected:
                print(
                    f"  context {loaded.n_ctx} tokens, {expected.peak_bytes / 1e6:.0f} MB at most, "
                    f"about {expected.tokens_per_second:.0f} tokens/s"
                )


if __name__ == "__main__":
    main(*sys.argv[1:])
