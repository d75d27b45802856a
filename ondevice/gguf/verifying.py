"""Whether a model can be drafted for, told from its file before it is loaded."""

from __future__ import annotations

from ondevice.gguf._file import GGUFFile

#: Recurrent architectures that compute several tokens otherwise than one after the other.
_TOGETHER = frozenset({"deepseek4", "glm5-next", "kimi-k3", "minimax-01"})


def can_verify(file: GGUFFile) -> bool:
    """Whether a pass of several tokens can give each what it would come to alone.

    As :attr:`ondevice.llama.Context.may_verify` finds out for the loaded model: not with the
    attention that has an indexer, which chooses for several tokens what they look back on.
    """
    has_indexer = file.hyperparameter("attention.indexer.head_count")
    return file.architecture not in _TOGETHER and not has_indexer
