"""Recognises keys, passwords, card and account numbers, so that they are not remembered.

Keys are known by their form, the rest by what stands before them: the name of a setting, or the
words with which people tell a password. ``secrets.toml`` has both, and each language its words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from ondevice.checking import work_out
from ondevice.memory._language import Language, Secrets, languages

_FILE = Path(__file__).with_name("secrets.toml")
_LAYOUT = re.compile(r"\n[ \t]*")

_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?"
    r"(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)"
    r"|(?<=Private-Lines: )\d+\n(?:[A-Za-z0-9+/=]+(?:\n|\Z))+",  # PuTTY
    re.DOTALL,
)
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/:@]*:[^\s/@]+(?=@)")
_LOGIN = re.compile(  # anna:s3cret@host, -u anna:s3cret
    r"(?<![\w/:.@-])[\w.-]+:(?P<host>(?=[^\s:@/]{0,64}\d)[^\s:@/]{6,64})(?=@[\w-]+\.[\w.]+)"
    r"|(?:-u|--user)[ =][\"']?[\w.@+-]+:(?P<option>[^\s\"']{4,})"
    r"|-p(?P<short>(?=\S{0,64}\d)[^\s\"'=]{6,})"
)
_HEADER = re.compile(
    r"(?i:\b(?:Bearer|Basic|Token|Digest|ApiKey)) (?P<it>(?=\S{0,64}\d)[\w.~+/=-]{16,})"
)
_ELEMENT = re.compile(
    r"(?i:<(?:password|passwd|secret|token|apikey|api_key)>)(?P<it>[^<\s]{4,})(?=</)"
)
#: Several words, that only a passphrase may have.
_WORDS = re.compile(
    r"(?i:\bpassphrase)[^:=\n.]{0,24}[:=][ \t]*"
    r"(?!(?:must|should|may|can|is|not|no|at|choose|use|enter|type|your|the|an?|how|what|same)\b)"
    r"(?P<it>(?:[\w'-]+ ){2,11}[\w'-]+)(?=\s*(?:$|[.,;!\n]))"
)
#: What nobody calls anything else, behind some words: “my password, I think it was …”.
_SIGNS = (
    r"(?P<it>(?=\S*\d)(?=\S*[^\W\d_])(?=\S*[_!#$%^&*+=~])(?!\S*[@/])[^\s,;:\"'“”«»()\[\]]{8,64})"
)
#: A value: in quotes, or up to a blank or what ends a clause.
_VALUE = (
    r"(?:(?P<quote>[\"'“„«`])(?P<quoted>[^\"'“”„»`\n]{3,200})[\"'”“»`]"
    r"|(?P<digits>\d(?:[ -]?\d){2,11}(?![\w.,:-]*[A-Za-z0-9]))"
    r"|(?P<word>[^\s,;\"“”„»«<>]{3,200}))(?P<tail>.{0,24})"
)
_ENDS = re.compile(r"[\"'”»`)\]}]*\s*(?:$|[\n.,;!?|&<]|/ |\W*$)")
_CLOSING = ".,;:!?)]}'\"”»…"
_LAST = re.compile(r"[.!?]+(?=\s|$)")
_ORDINAL = re.compile(
    r"\d+(?:st|nd|rd|th|er?|e|te[nr]?|º|ª)|\d{1,2}[:.h]\d{2}(?:am|pm)?|[\d.,]+(?:%|€|\$|[kKMG]B|ms|px)?",
)
_COUNTED = re.compile(
    r"\s*(?:\w+ ){0,1}(?:char|digit|letter|zeichen|ziffer|stelle|caract|chiffr|cifr|teken|cijfer"
    r"|символ|цифр|位|文字|桁|자|of\b)",
    re.IGNORECASE,
)
_FEW_LETTERS = 8  # of a plain word that may be a password
_PIECE = 32_000  # letters that are looked at together
_RANDOM = 16  # letters of what has no digit and is drawn by chance all the same

_DIGITS = re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?![\w.]?\d)")
#: First digits and lengths of the cards that there are (ISO/IEC 7812): no IMEI, few order numbers.
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}"
    r"|(?:6011|64[4-9]\d|65\d\d|35\d\d)\d{12}|62\d{14,17}|(?:50|5[6-8]|6[37])\d{10,17}"
)
_NO_CARD = re.compile(
    r"(?i:order|bestell|commande|pedido|ordine|encomenda|заказ|订单|注文|tracking"
    r"|sendung|paket|colis|imei|isbn|ean|invoice|rechnung|facture)\D{0,24}$"
)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_NUMBER = r"(?P<it>(?=(?:[^\s\d]{0,8}[ -]?\d){4})[\dA-Z][\dA-Za-z.-]*(?: [\d.-]{2,})*)"

_Span = tuple[int, int]
_Part = Callable[
    [re.Match[str]], _Span | None
]  # of what is found, where the secret is, if it is one


class _Forms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in ``secrets.toml``."""

    keys: tuple[str, ...]
    passwords: str
    others: str
    placeholder: str


class _SecretRules(NamedTuple):
    """All that is looked for, compiled."""

    keys: re.Pattern[str]
    assigned: re.Pattern[str]
    placeholder: re.Pattern[str]
    told: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]  # with its ordinary words
    near: re.Pattern[str]
    after: re.Pattern[str]
    numbers: re.Pattern[str]
    phrases: re.Pattern[str]


def redact(text: str) -> tuple[str, tuple[str, ...]]:
    """``text`` with each secret replaced by “[password left out]”, and the kinds that were."""
    kinds: list[str] = []
    text = _BLOCK.sub(_leave_out(kinds, "private key", re.Match.span), text)
    text = "".join(_redact_piece(piece, kinds) for piece in _pieces(text))
    return text, tuple(dict.fromkeys(kinds))


def _pieces(text: str) -> Iterator[str]:
    """A long text in parts, so that other threads go on between them."""
    start = 0
    while len(text) - start > _PIECE:
        end = max(text.rfind(gap, start, start + _PIECE) for gap in "\n ") + 1
        end = end if end > start else start + _PIECE
        yield text[start:end]
        start = end
    yield text[start:]


def _redact_piece(text: str, kinds: list[str]) -> str:
    rules = _rules()
    text = rules.keys.sub(_leave_out(kinds, "key", re.Match.span), text)
    for pattern in (_IN_ADDRESS, _LOGIN, _HEADER, _ELEMENT, _WORDS):
        text = pattern.sub(_leave_out(kinds, "password", _group), text)
    text = rules.phrases.sub(_leave_out(kinds, "recovery phrase", _group), text)
    text = rules.assigned.sub(_leave_out(kinds, "password", _assigned), text)
    for pattern, ordinary in rules.told:
        text = pattern.sub(_leave_out(kinds, "password", partial(_told, ordinary)), text)
    text = rules.near.sub(_leave_out(kinds, "password", _group), text)
    text = rules.after.sub(_leave_out(kinds, "password", _before), text)
    text = rules.numbers.sub(_leave_out(kinds, "personal number", _group), text)
    text = _DIGITS.sub(_leave_out(kinds, "card number", _card), text)
    return _IBAN.sub(_leave_out(kinds, "account number", _iban), text)


def _leave_out(kinds: list[str], kind: str, part: _Part) -> Callable[[re.Match[str]], str]:
    """What puts “[… left out]” in place of a part of what was found, and takes note of the kind."""

    def replacement(found: re.Match[str]) -> str:
        span = part(found)
        if span is None:
            return found[0]
        kinds.append(kind)
        start, end = span[0] - found.start(), span[1] - found.start()
        return f"{found[0][:start]}[{kind} left out]{found[0][end:]}"

    return replacement


work_out(_Forms)


@cache
def _rules() -> _SecretRules:
    forms = msgspec.toml.decode(_FILE.read_bytes(), type=_Forms)
    passwords, others, placeholder = (
        _LAYOUT.sub("", text.strip("\n"))
        for text in (forms.passwords, forms.others, forms.placeholder)
    )
    told = [language for language in languages() if language.secrets]

    def names(pattern_of: Callable[[Secrets], str]) -> str:
        return "|".join(
            _bounded(language.pattern(pattern))
            for language in told
            if language.secrets and (pattern := pattern_of(language.secrets))
        )

    equals = f"(?:{names(lambda secrets: secrets.equals)}|[:=])"
    return _SecretRules(
        keys=re.compile(rf"(?<![A-Za-z0-9_-])(?:{'|'.join(forms.keys)})(?![A-Za-z0-9])"),
        assigned=re.compile(
            rf"(?i:(?:(?P<password>{passwords})|(?:{others}))(?:[_-][\w-]{{0,24}}|\d{{0,3}})[\"'\]]{{0,2}}"
            rf"[ \t]{{0,3}}(?P<sign>=>|:=|[:=]|,(?=[ \t]*[\"'])))[ \t]{{0,3}}{_VALUE}"
        ),
        placeholder=re.compile(placeholder, re.IGNORECASE),
        told=tuple(
            (_teller(language, secrets), language.compile(secrets.ordinary or r"(?!)"))
            for language in told
            if (secrets := language.secrets)
        ),
        near=re.compile(
            rf"(?i:(?<![^\W_])(?:{names(lambda secrets: secrets.names)}))(?![^\W_])"
            rf"[^\n.;(\[]{{1,48}}?(?<=\s){_SIGNS}"
        ),
        after=re.compile(
            rf"(?P<it>(?<![^\s\"'“„«(])[^\s\"'“”„»«]{{5,64}})[\"'”“»]?[ ,]+(?i:"
            rf"{names(lambda secrets: secrets.after)})(?![^\W_])"
        ),
        numbers=re.compile(
            rf"(?i:(?<![^\W_])(?:{names(lambda secrets: secrets.numbers)})(?:[ ]?{equals})?)"
            rf"[ ]{{0,2}}{_NUMBER}"
        ),
        phrases=re.compile(
            rf"(?i:(?:{names(lambda secrets: secrets.phrases)})[ ]?{equals})\s*"
            r"(?P<it>(?:[a-z]{3,8}[ ,]+){11,23}[a-z]{3,8})"
        ),
    )


def _bounded(pattern: str) -> str:
    """``pattern`` with words of so many letters at most: longer ones take their square in time."""
    return pattern.replace(r"\w*", r"\w{0,40}").replace(r"\w+", r"\w{1,40}")


def _teller(language: Language, secrets: Secrets) -> re.Pattern[str]:
    """How a password is told in this language."""
    of = (
        rf"(?:[ ](?:{language.pattern(secrets.of)})\b[ ]?[\w'’. -]{{0,40}}?)?" if secrets.of else ""
    )
    start = r"(?<![^\W_])" if secrets.of else ""
    end = r"(?![^\W_])" if secrets.of else ""
    gap = r"(?:[ ]|\b|(?<=\W))"
    return re.compile(
        rf"(?i:{start}(?:(?P<password>{_bounded(language.pattern(secrets.names))})"
        rf"|(?:{_bounded(language.pattern(secrets.codes or '(?!)'))})){end}{of}"
        rf"(?P<sign>\s*(?:(?:{language.pattern(secrets.equals)}){gap if secrets.of else ''}"
        rf"|[:=：])\s*|[ ](?=[^\s]{{0,64}}\d)|(?<=[\u2e80-\ud7af])(?=[!-~]{{0,64}}\d)))"
        rf"(?:(?:now|jetzt|ahora|adesso|agora|nu|теперь|also|simply|just)[ ])?{_VALUE}"
    )


def _group(found: re.Match[str]) -> _Span:
    """The last group that has matched, or all."""
    return found.span(found.lastindex or 0)


def _assigned(found: re.Match[str]) -> _Span | None:
    return _value(found, plain=found["password"] is not None, least=4, sure=found["sign"] != ":")


def _told(ordinary: re.Pattern[str], found: re.Match[str]) -> _Span | None:
    sign = found["sign"].strip()
    assigns = sign in (":", "=", "：")
    span = _value(
        found,
        plain=found["password"] is not None and bool(sign),
        least=4 if assigns else _FEW_LETTERS,
        sure=bool(sign),
    )
    if span is None or ordinary.fullmatch(found.string[slice(*span)]):
        return None
    # What ends the sentence may as well be the end of the password.
    end = _LAST.match(found.string, span[1], found.end())
    return span[0], end.end() if end else span[1]


def _value(found: re.Match[str], *, plain: bool, least: int, sure: bool) -> _Span | None:
    """Where the secret is in a value; None: it is something else that is said there.

    ``plain``: it may be a word, of ``least`` so many letters, if it ends the clause. ``sure``:
    something says that it is the value.
    """
    if found["quoted"] is not None:
        value = found["quoted"]
        if _rules().placeholder.fullmatch(value) or not (plain or _is_random(value)):
            return None
        return found.span("quoted") if plain or " " not in value.strip() else None
    if found["digits"] is not None:
        counted = _COUNTED.match(found["tail"]) or found["tail"][:1] in ("%", "€", "$", "°")
        few = sum(map(str.isdigit, found["digits"])) < (4 if plain or not sure else 3)
        return None if counted or few else found.span("digits")
    start = found.start("word")
    word = found["word"]
    if cut := _unspaced().search(word):
        word = word[: cut.start()]
    word = word.rstrip(_CLOSING) if not _is_random(word) else word.rstrip(".,;:)'\"")
    rest = found["word"][len(word) :] + found["tail"]
    if len(word) < 4 or _rules().placeholder.fullmatch(word) or _ORDINAL.fullmatch(word):
        return None
    if _is_random(word):
        return (start, start + len(word)) if sure or len(word) >= 6 else None
    is_long = sure and len(word) >= _RANDOM and word.isascii() and "-" not in word
    if plain and len(word) >= least and word.isascii() and _ENDS.match(rest):
        return start, start + len(word)
    return (start, start + len(word)) if is_long and _ENDS.match(rest) else None


def _is_random(word: str) -> bool:
    """Whether a word has what words have not: digits, signs or capitals within it."""
    if any(map(str.isdigit, word)):
        return any(map(str.isalpha, word)) or len(word) >= 4
    return bool(re.search(r"[a-z][A-Z]|[!@#$%^&*+=~|\\](?=.)", word))


def _before(found: re.Match[str]) -> _Span | None:
    word = found["it"]
    return found.span("it") if _is_random(word) and not _ORDINAL.fullmatch(word) else None


def _card(found: re.Match[str]) -> _Span | None:
    """Its place if the digits pass Luhn's check (ISO/IEC 7812-1, annex B) and are of a card."""
    compact = "".join(filter(str.isdigit, found[0]))
    digits = [int(char) for char in compact]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    if (sum(digits[-1::-2]) + sum(doubled)) % 10 or not _CARD.fullmatch(compact):
        return None
    before = found.string[max(0, found.start() - 40) : found.start()]
    return None if _NO_CARD.search(before) else found.span()


def _iban(found: re.Match[str]) -> _Span | None:
    """Its place if the check digits are right (ISO 13616)."""
    compact = found[0].replace(" ", "")
    number = int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4]))
    return found.span() if number % 97 == 1 else None


@cache  # and not while starting: such ranges take milliseconds
def _unspaced() -> re.Pattern[str]:
    return re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]")
