"""Takes out of texts that are too long what there is room for: their beginnings, or what matters.

Nothing is kept: the index that finds what matters is in RAM and gone with the call.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import accumulate

from ondevice.memory._told import sentences_with
from ondevice.memory._words import ends, is_unspaced, language_name, words_of
from ondevice.store import TOKENIZER, Connection
from ondevice.store._sqlite import connect

GAP = "\n…\n"  # between passages that do not follow each other

_LONGEST = 1000  # characters of a passage: about 250 tokens
_LEAST = 300  # characters before a cut that is a good one
_CUTS = ("\n\n", "\n", ". ", "。", " ")  # the best places for one first
#: Bytes of a memory that is quoted whole, and of what is quoted of a longer one: 200 tokens, for
#: which there is room beside every model; and letters of a piece of it.
_QUOTED, _PIECE, _SHORTEST_PIECE = 800, 160, 40
_GAP_TOKENS = 3
_TRIED = 8  # passages from which it is told how long they are
_APART = 8  # places between the passages of two texts: these are no neighbours
_MOST_BYTES_OF_TOKEN = 16  # of nearly all; what has longer ones gets less than there is room for
_MENTION = re.compile(r'(?<!\S)@(?:"[^"\n]+"|\S+)|\[pasted text[^\]\n]*\]')

#: Tells the tokens of each text.
Count = Callable[[Sequence[str]], Sequence[int]]


def beginnings(texts: Sequence[str], budget: int, count: Count) -> list[str]:
    """The beginnings of ``texts``, of ``budget`` tokens together. Short ones stay whole."""
    shown = [text[: (budget + 1) * _MOST_BYTES_OF_TOKEN] for text in texts]
    sizes = count(shown)
    left, cut = budget, [""] * len(texts)
    by_size = sorted(range(len(texts)), key=lambda n: sizes[n])
    for place, n in enumerate(by_size):
        share = left // (len(texts) - place)
        cut[n] = shown[n] if sizes[n] <= share else _beginning(shown[n], share, count)
        left -= min(sizes[n], share)
    return cut


def passages(texts: Sequence[str], question: str, budget: int, count: Count) -> list[str]:
    """What of ``texts`` matters to ``question``, of ``budget`` tokens together.

    Passages in their order, with an ellipsis where something is left out: those that a search
    finds, and the beginning of each text, which says what it is. If the question has no word of
    them, as “Summarize this”, they are taken from all over the texts.
    """
    slices = [list(_slices(text)) for text in texts]
    places = [(n, at) for n, pieces in enumerate(slices) for at in range(len(pieces))]
    first = [place for place in places if place[1] == 0]
    ranked = _found(slices, _MENTION.sub(" ", question)) or _spread(slices, places, budget, count)
    room = budget * _MOST_BYTES_OF_TOKEN
    wanted = list(dict.fromkeys([*first, *ranked]))
    lengths = accumulate(len(slices[n][at]) for n, at in wanted)
    wanted = [place for place, length in zip(wanted, lengths, strict=True) if length <= room]
    if not wanted:
        return beginnings(texts, budget, count)
    taken: set[tuple[int, int]] = set()
    left = budget
    for place, size in zip(wanted, count([slices[n][at] for n, at in wanted]), strict=True):
        # The beginnings are not all that there is room for.
        most = left if place[1] else min(left, budget // (1 + len(first)))
        if size + _GAP_TOKENS <= most:
            taken.add(place)
            left -= size + _GAP_TOKENS
    if not taken:
        return beginnings(texts, budget, count)
    return [
        _joined(pieces, sorted(at for m, at in taken if m == n)) for n, pieces in enumerate(slices)
    ]


def excerpt(text: str, question: str) -> str:
    """``text``, or of a long one its beginning and the pieces that have words of the ``question``.

    The same text and question always give the same.
    """
    if len(text.encode()) <= _QUOTED:
        return text
    pieces = list(_slices(ends(text), _PIECE, _SHORTEST_PIECE))
    worth = [0.0] * (len(pieces) + 1)  # the last one is beside both ends
    of = language_name(question)
    for word in words_of(question):
        found = [n for n, piece in enumerate(pieces) if sentences_with({word}, [piece], of)]
        for n in found:
            for apart, share in ((0, 1.0), (1, 0.5), (-1, 0.25)):
                worth[n + apart] += share / len(found)
    by_worth = sorted(range(len(pieces)), key=lambda n: -worth[n])
    wanted = [*(n for n in by_worth if worth[n]), 0]
    sizes = accumulate(len(pieces[n].encode()) for n in wanted)
    taken = {n for n, size in zip(wanted, sizes, strict=True) if size <= _QUOTED}
    return _joined(pieces, sorted(taken))


def _joined(pieces: Sequence[str], taken: Sequence[int]) -> str:
    text, end = "", 0
    for at in taken:
        if at != end:
            text = text.rstrip() + (GAP if text else GAP.lstrip())
        text += pieces[at]
        end = at + 1
    return text if end == len(pieces) or not taken else text.rstrip() + GAP.rstrip()


def _slices(text: str, longest: int = _LONGEST, least: int = _LEAST) -> Iterator[str]:
    """``text`` in passages of so many characters, which together are the text."""
    start = 0
    while start < len(text):
        end = start + longest
        if end < len(text):
            for cut in _CUTS:
                found = text.rfind(cut, start + least, end)
                if found >= 0:
                    end = found + len(cut)
                    break
        yield text[start:end]
        start = end


def _beginning(text: str, budget: int, count: Count) -> str:
    """As much of the beginning as has ``budget`` tokens, cut at a good place."""
    pieces = list(_slices(text))
    sums = list(accumulate(count(pieces)))
    whole = sum(size + _GAP_TOKENS <= budget for size in sums)
    kept = "".join(pieces[:whole])
    if not whole and pieces:  # not even the first one fits
        low, high = 0, len(pieces[0])
        while low < high:
            middle = (low + high + 1) // 2
            fits = count([pieces[0][:middle]])[0] + _GAP_TOKENS <= budget
            low, high = (middle, high) if fits else (low, middle - 1)
        kept = pieces[0][:low]
    return f"{kept.rstrip()}{GAP.rstrip()}" if kept else ""


def _found(slices: Sequence[Sequence[str]], question: str) -> list[tuple[int, int]]:
    """Places of passages with words of the ``question``, or near such ones, best first."""
    words = words_of(question)
    if not words:
        return []
    from ondevice.memory._match import match  # noqa: PLC0415 - numpy comes with it
    from ondevice.memory._stems import stemmer_of  # noqa: PLC0415

    starts = [0, *accumulate(len(pieces) + _APART for pieces in slices)]
    with closing(connect(":memory:")) as connection:
        numbered = (
            (starts[n] + at, piece)
            for n, pieces in enumerate(slices)
            for at, piece in enumerate(pieces)
        )
        _index(connection, numbered)
        matches = match(connection, words, (), stemmer_of(question))
    found = []
    for _, id_ in sorted(zip((-matches.scores).tolist(), matches.ids.tolist(), strict=True)):
        n = bisect_right(starts, id_) - 1
        if 0 <= n < len(slices) and id_ - starts[n] < len(slices[n]):
            found.append((n, id_ - starts[n]))
    return found


def _index(connection: Connection, numbered: Iterable[tuple[int, str]]) -> None:
    """What :func:`match` looks up, as the store has it."""
    connection.execute("CREATE TABLE cube_count (number INTEGER)")
    for index, tokenizer in (
        ("memory_index", TOKENIZER),
        ("memory_trigram", "trigram"),
    ):
        connection.execute(
            f"CREATE VIRTUAL TABLE {index} USING fts5("
            f"content, content='', detail='none', tokenize=\"{tokenizer}\")"
        )
    with connection:
        count = 0
        for count, (id_, piece) in enumerate(numbered, start=1):  # noqa: B007
            connection.execute(
                "INSERT INTO memory_index(rowid, content) VALUES (?, ?)", (id_, piece)
            )
            if any(map(is_unspaced, piece)):
                connection.execute(
                    "INSERT INTO memory_trigram(rowid, content) VALUES (?, ?)", (id_, f"{piece}  ")
                )
        connection.execute("INSERT INTO cube_count VALUES (?)", (count,))


def _spread(
    slices: Sequence[Sequence[str]], places: Sequence[tuple[int, int]], budget: int, count: Count
) -> list[tuple[int, int]]:
    """Some of ``places``, evenly from all over them, as many as there is room for, about."""
    tried = [places[at * len(places) // _TRIED] for at in range(_TRIED)] if places else []
    sizes = count([slices[n][at] for n, at in tried])
    number = budget * _TRIED // max(1, sum(sizes) + _TRIED * _GAP_TOKENS)
    number = min(len(places), max(1, number))
    return [places[at * len(places) // number] for at in range(number)]
