"""Whether reading only the active neurons of a SwiGLU model would pay: how many can be left out.

For each token and block, the neurons of the feed-forward part are put into groups as large as one
read of the disk (32 or 64 KB), and the groups with the smallest activations are set to zero. They
are chosen with hindsight, which no predictor beats. The loss is the KL divergence of the next
token's distribution from the whole model's.
"""

from __future__ import annotations

import ctypes

import frame
import numpy as np
import numpy.typing as npt

from ondevice import llama, models
from ondevice.llama import Actions, Context, EvalHook, Model, Tensor

LARGER = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
TEXT = (
    "The lighthouse keeper climbed the stairs each evening at dusk, counting the steps as his "
    "father had done. From the gallery he could see the harbour, the fishing boats and, on clear "
    "days, the mountains across the bay. He trimmed the lamp, wound the clockwork and wrote one "
    "line in the log. def parse(line):\n    key, _, value = line.partition('=')\n    return "
    "key.strip(), value.strip()\n\nWater boils at a lower temperature on a mountain because the "
    "pressure of the air is lower there; so potatoes take longer to cook. "
)
_BYTES_OF_A_WEIGHT = 0.57  # of Q4_K and Q4_1, about
_CHUNK = 16  # tokens: as many as may have logits


class Leaving:
    """Sets the least active groups of neurons to zero before the product that sums them up."""

    def __init__(self, share: float, group_bytes: int) -> None:
        self._share = share
        self._group_bytes = group_bytes

    def inspect(self, node: Tensor) -> Actions | None:
        operands = list(node.operands())
        if node.op_name != "MUL_MAT" or not operands[0].name.endswith("ffn_down.weight"):
            return None
        neurons, width = operands[0].ne[0], operands[0].ne[1]
        per_neuron = 3 * width * _BYTES_OF_A_WEIGHT
        divisors = [size for size in range(1, neurons) if neurons % size == 0]
        size = min(divisors, key=lambda size: abs(size * per_neuron - self._group_bytes))
        return Actions(before=lambda: self._zero(operands[1], size))

    def _zero(self, active: Tensor, size: int) -> None:
        neurons, tokens = active.ne[0], active.ne[1]
        assert active.data is not None and active.nb[1] == 4 * neurons
        floats = (ctypes.c_float * (neurons * tokens)).from_address(active.data)
        groups = np.ctypeslib.as_array(floats).reshape(tokens, neurons // size, size)
        order = np.argsort(np.square(groups).sum(axis=2), axis=1)
        for token, least in enumerate(order[:, : round(len(order[0]) * self._share)]):
            groups[token, least] = 0


def log_probabilities(model: Model, hook: EvalHook, n_tokens: int) -> npt.NDArray[np.float64]:
    """Of the next token after each token of the text, shape (n_tokens, n_vocab)."""
    context = Context(model, n_ctx=512, eval_hook=hook)
    tokens = model.tokenize(TEXT)[:n_tokens]
    rows = []
    for at in range(0, len(tokens), _CHUNK):
        chunk = tokens[at : at + _CHUNK]
        context.decode(chunk, n_outputs=len(chunk))
        rows += [context.logits(back).astype(np.float64) for back in range(len(chunk), 0, -1)]
    context.close()
    logits: npt.NDArray[np.float64] = np.array(rows)
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    llama.start(open("/dev/null", "w"))  # noqa: SIM115, PTH123 - for the life of the process
    files = [("135m", models.find("smollm2-135m").path)]
    files += [("1.5b", path) for path in frame.models(LARGER)]
    n_tokens = 64 if quick else 160
    figures: frame.Figures = {}
    for name, path in files:
        model = Model(path, use_extra_bufts=False)
        whole = log_probabilities(model, EvalHook(), n_tokens)
        for kilobytes in (0, 32, 64):
            for percent in (10, 20, 30, 50):
                hook = EvalHook(Leaving(percent / 100, kilobytes << 10))
                less = log_probabilities(model, hook, n_tokens)
                loss = (np.exp(whole) * (whole - less)).sum(axis=1).mean()
                groups = f"groups_{kilobytes}kb" if kilobytes else "neurons"
                figures[f"kl_{name}_{groups}_without_{percent}_percent"] = float(loss)
                frame.say(f"{name}, {groups}, without {percent} %: KL {loss:.4f}")
        model.close()
    return figures, []


if __name__ == "__main__":
    frame.run(__doc__, measure)
