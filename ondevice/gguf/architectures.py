"""Which architectures do not write text one token after the other, by llama.cpp's names."""

from __future__ import annotations

import re

_ENCODERS = re.compile(r"clip|t5|t5encoder|.*bert.*|.*embed.*|wavtokenizer.*")
_DIFFUSION = frozenset({"dream", "llada", "llada-moe", "rnd1"})


def is_encoder(architecture: str) -> bool:
    """Whether its models turn texts, pictures or sounds into vectors, or need one that does."""
    return bool(_ENCODERS.fullmatch(architecture))


def is_diffusion(architecture: str) -> bool:
    """Whether its models write a whole text at once, again and again."""
    return architecture in _DIFFUSION
