"""Recognises keys, passwords and card numbers, so that they are not remembered."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from ondevice.memory._language import languages

_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "private key",
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
    ),
    (
        "key",
        re.compile(
            r"\b(?:sk|pk|rk)[-_](?:[a-z]+[-_])*[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic, Stripe
            r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}"
            r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}|\bxox[abprs]-[\w-]{10,}"
            r"|\bhf_[A-Za-z0-9]{20,}|\bnpm_[A-Za-z0-9]{20,}|\bpypi-[\w-]{30,}"
            r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"  # JSON web token
        ),
    ),
    ("password", re.compile(r"(?<=://)[^\s/:@]+:[^\s/@]+(?=@)")),  # in a URL
)
# “my PIN is 4711”, “password: hunter2”; not “my password is too long to type”.
_PASSWORD = r"[\"'“]?((?=\S*[\d\W_])[^\s,;]{4,}|(?<=[:=])[^\s,;]{4,}|(?<=[:=] )[^\s,;]{4,})"
_DIGITS = re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?![\w.]?\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")


def redact(text: str) -> tuple[str, tuple[str, ...]]:
    """``text`` with each secret replaced by “[password left out]”, and the kinds that were."""
    kinds: list[str] = []

    def leave_out(kind: str) -> Callable[[re.Match[str]], str]:
        def replacement(found: re.Match[str]) -> str:
            kinds.append(kind)
            start, end = found.span(found.lastindex or 0)
            whole, offset = found[0], found.start()
            return f"{whole[: start - offset]}[{kind} left out]{whole[end - offset :]}"

        return replacement

    for kind, pattern in (*_PATTERNS, *_told()):
        text = pattern.sub(leave_out(kind), text)
    text = _DIGITS.sub(
        lambda found: leave_out("card number")(found) if _is_card(found[0]) else found[0], text
    )
    text = _IBAN.sub(
        lambda found: leave_out("account number")(found) if _is_iban(found[0]) else found[0], text
    )
    return text, tuple(dict.fromkeys(kinds))


@cache
def _told() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """How a password is told in each language."""
    return tuple(
        (
            "password",
            re.compile(
                rf"(?i:\b(?:{language.pattern(told.names)})"
                rf"(?: (?:{language.pattern(told.of)}) [\w ]{{1,30}}?)?"
                rf"\s*(?:{language.pattern(told.equals)}|[:=])\s*){_PASSWORD}"
            ),
        )
        for language in languages()
        if (told := language.secrets)
    )


def _is_card(text: str) -> bool:
    """Whether the digits pass Luhn's check (ISO/IEC 7812-1, annex B)."""
    digits = [int(char) for char in text if char.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    """Whether the check digits are right (ISO 13616)."""
    compact = text.replace(" ", "")
    return int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1
