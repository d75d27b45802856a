"""Whether two models mean the same by a token, so that one can draft for the other."""

from __future__ import annotations

from ondevice.errors import UsageError
from ondevice.weights.gguf import ArrayOnDisk, GGUFFile


def share_vocabulary(drafter: GGUFFile, target: GGUFFile) -> bool:
    """Whether all tokens that both have are the same; one may have more of them."""
    if drafter.text("tokenizer.ggml.model") != target.text("tokenizer.ggml.model"):
        return False
    ours, theirs = _vocabulary(drafter), _vocabulary(target)
    shorter = min(len(ours), len(theirs))
    return shorter > 0 and ours[:shorter] == theirs[:shorter]


def check_vocabulary(drafter: GGUFFile, target: GGUFFile) -> None:
    """Raises :class:`UsageError` if a token of one model means something else to the other."""
    if not share_vocabulary(drafter, target):
        raise UsageError(
            f"{drafter.path.name} cannot draft for {target.path.name}: they have different "
            "vocabularies. Choose a smaller model of the same family."
        )


def _vocabulary(file: GGUFFile) -> bytes:
    """The texts of the tokens in their order, as they lie in the file; empty if there are none."""
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, ArrayOnDisk):
        return b""
    with file.path.open("rb") as opened:
        opened.seek(tokens.offset)
        return opened.read(tokens.n_bytes)
