"""Vowel signs of Indic scripts are part of their words in the index of the memory.

Without that they part a word, and “कुत्ता” is indexed as three letters, which most words have.
"""

from __future__ import annotations

from ondevice.store._sqlite import Connection

#: First and last of the signs, from Devanagari to Sinhala: what Unicode 15 has for marks there.
_RANGES = """
900-903 93a-93c 93e-94f 951-957 962-963 981-983 9bc-9bc 9be-9c4 9c7-9c8 9cb-9cd 9d7-9d7 9e2-9e3
9fe-9fe a01-a03 a3c-a3c a3e-a42 a47-a48 a4b-a4d a51-a51 a70-a71 a75-a75 a81-a83 abc-abc abe-ac5
ac7-ac9 acb-acd ae2-ae3 afa-aff b01-b03 b3c-b3c b3e-b44 b47-b48 b4b-b4d b55-b57 b62-b63 b82-b82
bbe-bc2 bc6-bc8 bca-bcd bd7-bd7 c00-c04 c3c-c3c c3e-c44 c46-c48 c4a-c4d c55-c56 c62-c63 c81-c83
cbc-cbc cbe-cc4 cc6-cc8 cca-ccd cd5-cd6 ce2-ce3 d00-d03 d3b-d3c d3e-d44 d46-d48 d4a-d4d d57-d57
d62-d63 d81-d83 dca-dca dcf-dd4 dd6-dd6 dd8-ddf df2-df3
"""


def _signs() -> str:
    ends = (span.split("-") for span in _RANGES.split())
    return "".join(
        chr(code) for first, last in ends for code in range(int(first, 16), int(last, 16) + 1)
    )


VOWEL_SIGNS = _signs()
#: What makes words of a text in the index of the memory.
TOKENIZER = f"porter unicode61 remove_diacritics 2 tokenchars '{VOWEL_SIGNS}'"

_STATEMENTS = (
    "DROP TABLE memory_index",
    f"""
    CREATE VIRTUAL TABLE memory_index USING fts5(
        content, content='cube', content_rowid='id', detail='none', tokenize="{TOKENIZER}"
    )
    """,
    "INSERT INTO memory_index(memory_index, rank) VALUES ('secure-delete', 1)",
    "INSERT INTO memory_index(memory_index) VALUES ('rebuild')",
)


def migrate(connection: Connection) -> None:
    for statement in _STATEMENTS:
        connection.execute(statement)
