"""Show a reply as it is written, with its speed: python examples/stream.py MODEL.gguf "…" """

import sys

from ondevice import Chunk, Engine, Finished, Generate, Load, Notice, PromptProgress, Sampling, Turn


def main(model: str, question: str) -> None:
    turns = (
        Turn("system", "Answer in one or two sentences."),
        Turn("user", question),
    )
    request = Generate(turns=turns, sampling=Sampling(temperature=0), max_tokens=60)
    with Engine() as engine:
        engine.load(Load(path=model), on_progress=lambda share: show(f"loading {share:.0%}", "\r"))
        show("")
        for event in engine.generate(request):
            match event:
                case PromptProgress():
                    show(f"reading {event.done} of {event.total} tokens")
                case Notice():
                    show(event.text)
                case Chunk():  # event.part is "thinking" for a model that thinks first
                    print(event.text, end="", flush=True)
                case Finished():
                    print()
                    speed = event.statistics.generated_per_second
                    show(f"{event.reason}: {speed:.0f} tokens/s, seed {event.statistics.seed}")


def show(line: str, end: str = "\n") -> None:
    print(line, file=sys.stderr, end=end)


if __name__ == "__main__":
    main(*sys.argv[1:])
