"""Texts with secrets and texts without, to measure how well the memory tells them apart.

The texts in ``bench/texts/memory_secrets.json`` name the values that are drawn: ``{a20}`` stands
for twenty letters and digits, ``{w}`` for what people choose as a password.
"""

from __future__ import annotations

import json
import random
import re
import string
from pathlib import Path

_TEXTS = Path(__file__).with_name("texts") / "memory_secrets.json"
_DRAWN = re.compile(r"\{([abhdAw])(\d*)\}")
_LETTERS = {
    "a": string.ascii_letters + string.digits,
    "A": string.ascii_uppercase + "234567",
    "b": string.ascii_letters + string.digits + "+/",
    "h": "0123456789abcdef",
    "d": string.digits,
}
_CHOSEN = (
    "hunter22",
    "Sommer2024!",
    "tr0ub4dor&3",
    "Anna1987",
    "P@ssw0rd",
    "qwerty123",
    "x7Kq-92bL",
)


def drawn(template: str, seed: int) -> str:
    """The text with its values: the same for the same seed."""
    chance = random.Random(seed)

    def value(found: re.Match[str]) -> str:
        if found[1] == "w":
            return chance.choice(_CHOSEN)
        return "".join(chance.choices(_LETTERS[found[1]], k=int(found[2])))

    return _DRAWN.sub(value, template)


def own_texts() -> tuple[list[str], list[str]]:
    """Texts with a secret, and texts without one."""
    texts = json.loads(_TEXTS.read_text())
    return [drawn(text, n) for n, text in enumerate(texts["secret"])], texts["harmless"]
