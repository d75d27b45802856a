"""Links a cube to others that speak of the same (after A-MEM, section 3.2): that share rare words.

No model: what ties two memories together are the rare words they have in common, above all names.
The links are for people who look around in the memory. A search does not go by them.
"""

from __future__ import annotations

import re

from ondevice.memory import _cubes
from ondevice.memory._dates import without_times
from ondevice.memory._facts import told
from ondevice.memory._match import rare_words
from ondevice.memory._words import words_of
from ondevice.store import Connection

_MOST = 3  # links that a new cube gets
_LOOKED_UP = 10  # words
_LONG = 4  # letters of a word that is no name
_LEAST = 0.15  # share of what a cube says, by weight of its words, that the other says as well
_NAME = 2.0  # factor for the weight of a name
_NEAR = 3  # places: what stands so close in its conversation belongs together anyway
_LINKED = frozenset({"turn", "note", "document"})  # the rest is linked to its evidence

#: A word with a capital that does not begin a sentence.
_NAMES = re.compile(r"(?<=[\w,;:)’'] )[A-Z]\w+")


def relate(connection: Connection, cube_id: int, content: str) -> None:
    """Link the cube to at most three others that say most of what it says; drop earlier links."""
    connection.execute(
        "DELETE FROM link WHERE kind = 'related' AND (from_id = ?1 OR to_id = ?1)", (cube_id,)
    )
    statements = " ".join(told(content))
    names = {name.lower() for name in _NAMES.findall(statements)}
    words = [
        word for word in words_of(without_times(statements)) if word in names or len(word) >= _LONG
    ]
    # Long words are rare; to look up all words would take as long as a search.
    words.sort(key=lambda word: (word not in names, -len(word), word))
    shared: dict[int, float] = {}
    total = 0.0
    for word, weight, places in rare_words(connection, words[:_LOOKED_UP]):
        of_word = weight * (_NAME if word in names else 1.0)
        total += of_word
        for place in places:
            shared[place] = shared.get(place, 0.0) + of_word
    near = [
        place
        for place, weight in shared.items()
        if weight >= _LEAST * total and abs(place - cube_id) > _NEAR
    ]
    fit = [
        place
        for place, kind, status, _, _, text in _cubes.marks(connection, near)
        if kind in _LINKED and status in ("active", "superseded") and told(text)
    ]
    for place in sorted(fit, key=lambda place: (-shared[place], -place))[:_MOST]:
        _cubes.link(connection, cube_id, "related", place)
