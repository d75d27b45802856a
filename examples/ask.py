"""Ask a model one question: python examples/ask.py MODEL.gguf "Why is the sky blue?" """

import sys

from ondevice import Chunk, Engine, Generate, Load, OndeviceError, Sampling, Turn


def main(model: str, question: str) -> None:
    with Engine() as engine:  # a process of its own, which ends with the block
        engine.load(Load(path=model))  # sized to the RAM that is free
        turns = (Turn("system", "You are a helpful assistant."), Turn("user", question))
        request = Generate(turns=turns, sampling=Sampling(temperature=0), max_tokens=200)
        answer = "".join(e.text for e in engine.generate(request) if isinstance(e, Chunk))
    print(answer)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OndeviceError as error:
        sys.exit(str(error))  # says what happened and what to do next
