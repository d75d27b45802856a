"""Which architectures do not compute as most do, by llama.cpp's names."""

from __future__ import annotations

import re

_ENCODERS = re.compile(r"clip|t5|t5encoder|.*bert.*|.*embed.*|wavtokenizer.*")
_DIFFUSION = frozenset({"dream", "llada", "llada-moe", "rnd1"})
#: llama.cpp computes logits after all tokens of a pass, whichever are wanted, and gives those after
#: the first ones unless all are wanted.
LOGITS_OF_ALL = frozenset({"cogvlm"})
#: llama.cpp keeps keys and values of the prediction block as well, which no pass computes.
KEYS_OF_ALL = frozenset({"nemotron_h_moe"})
#: Positions turn keys in blocks with a sliding window, and none in the others.
TURNED_IN_WINDOWS = frozenset({"maple"})
#: Those whose prediction block llama.cpp computes. It also has code for others: GLM 4.5's ends the
#: process unless the file has sections of positions, MiMo's where queries are apart from keys.
PREDICTING = frozenset(
    {"cohere2moe", "deepseek2", "hy_v3", "nemotron_h_moe", "qwen35", "qwen35moe", "qwen3next"}
)


def is_encoder(architecture: str) -> bool:
    """Whether its models turn texts, pictures or sounds into vectors, or need one that does."""
    return bool(_ENCODERS.fullmatch(architecture))


def is_diffusion(architecture: str) -> bool:
    """Whether its models write a whole text at once, again and again."""
    return architecture in _DIFFUSION
