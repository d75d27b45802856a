"""What is known of a language stands in its file, and nowhere else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import msgspec
import pytest

from ondevice.memory import _dates, _language
from ondevice.memory._language import Language, languages

FOLDER = Path(_language.__file__).with_name("language")

#: A language that ondevice does not know, with all that one can have.
ESPERANTO = r"""
name = "Esperanto"
rank = 99

[parts]
month_beside = '(?:en|de)'

[search]
stop = "la kaj kie kiam kion mia mi estas en de al ĉu"
forms = "hundo hundoj"

[dates]
months = [
  "januaro", "februaro", "marto marton", "aprilo", "majo", "junio",
  "julio", "aŭgusto", "septembro", "oktobro", "novembro", "decembro",
]
weekdays = ["lundo", "mardo", "merkredo", "ĵaŭdo", "vendredo", "sabato", "dimanĉo"]
seasons = {printempo = 3, somero = 6, "aŭtuno" = 9, vintro = 12}
numbers = {du = 2, tri = 3}
units = {tago = 1, tagoj = 1, semajnoj = 7}
near = {"hieraŭ" = -1, "morgaŭ" = 1}
which = {lasta = -1}
periods = {semajno = "week"}
last = ['\b(?P<which>{which}) (?P<unit>{periods}|{seasons}|{weekdays})\b']
ago = ['\bantaŭ (?P<count>\d{1,3}|{numbers}) (?P<unit>{units})\b']
season = '\b{month_beside} ({seasons})\b'
day = '\b(\d{1,2})-an?\b'
says_when = '\b(?:{near}|antaŭ {numbers}|{months})\b'

[asking]
polite = 'bonvolu'
requests = '(?:skribu|traduku)\b'
request_ends = 'mi petas'
questions = '(?:kio|kie) estas\b'
small_talk = 'saluton'

[facts]
user = 'mi|mia'
opening = 'saluton|jes'
joins = 'sed'
lists = 'kaj'
after = 'nun'
unsure = 'se|diris'
doubtful = 'ne'
corrects = ['mi celis {value}']
allows = 'vi rajtas denove'

[facts.values]
diet = 'vegano'

[facts.people]
wife = 'edzino'

[facts.states]
home = ['mi loĝas en {value}']
person = ['mia {who} nomiĝas {value}']

[facts.others]
home = ['mia {who} loĝas en {value}']

[facts.ends]
home = ['mi ne plu loĝas en {value}']

[lessons]
sign = 'respondu'
opening = 'bonvolu'
closing = 'dankon'
general = ['ĉiam respondu\b']
alone = []

[lessons.topics]
length = '\bmallonge\b'

[questions]
when = ["kiam"]
anchor = '\b(?:(?P<before>antaŭ ol)|post kiam) (?P<event>mi [^?]+)'
once = '\biam\b'
about_user = '^(?:kie|kio)\b.*\b(?:mi|mia)\b'
advice = '\bdevas\b'
mentions = '\bmi\b'
particular = '^kiu\b'
profile = '\bkion vi scias pri mi\b'

[secrets]
names = 'pasvorto'
of = 'por'
equals = 'estas'

[pronouns]
user = "mi min"
others = "li ŝi"
"""

_READ = """
import json, sys
from datetime import date, datetime, timezone
from pathlib import Path
from ondevice.memory import Memory, _language, tells
_language._FOLDER = Path(sys.argv[1])
from ondevice.memory import _asking, _concern, _dates, _query, _reading, _secrets, _words
from ondevice.store import Database
memory = Memory(Database(Path(sys.argv[2])))
today = date(2024, 5, 15)  # a Wednesday
for text in ("Saluton! Mi loĝas en Lyon nun kaj laboras.",
             "Bonvolu ĉiam respondu mallonge, dankon"):
    memory.add(text, at=datetime(2024, 5, 3, tzinfo=timezone.utc))
spans = [_dates.find_days(text, today)[0].period for text in (
    "Hieraŭ mi kuris", "lasta semajno", "lasta lundo", "lasta vintro", "antaŭ du semajnoj")]
days = _dates.find_days("Mi venis la 3-an de marto 2021, en somero", today)
query = _query.read_query("Kiam mi iam kuris hieraŭ?", today)
print(json.dumps([
    sorted(cube.content for cube in memory.latest() if cube.kind != "note"),
    [list(map(str, span)) for span in spans],
    [sorted(days[0].months), sorted(days[0].days), sorted(days[0].years)],
    [_dates.says_when("mi kuris hieraŭ"), _dates.relative_days("Hieraŭ", today)[0][0]],
    [query.words, query.asks_when, query.asks_once],
    _query.anchor("Kie mi loĝis antaŭ ol mi venis?"),
    [tells("Skribu longan poemon pri maro"), tells("Poemon pri maro mi petas"),
     tells("kie estas granda maro"), tells("saluton kara bona amiko"), tells("La maro estas blua")],
    [_concern.concern_of(text) for text in (
        "Kie mi loĝas", "Kie mi devas loĝi", "Kantu por mi", "Kiu estas Zoe", "Kantu")],
    _secrets.redact("mia pasvorto por la pordo estas hunter2!")[0],
    _words.forms("hundoj"),
    [fact.content for fact in _reading.read_answer("plan | min | ŝi kuris\\nplan | min | kuris",
                                                   "ŝi kuris")],
    [hit.cube.kind for hit in memory.search("Kion vi scias pri mi?").hits],
    list(_words.words_of("Where is the zebra of my friends?")),
]))
"""


def test_adding_a_language_is_adding_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "language"
    shutil.copytree(FOLDER, folder)
    (folder / "eo.toml").write_text(ESPERANTO, "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(folder), str(tmp_path / "store.db")],
        stdout=subprocess.PIPE,
        check=True,
    )
    assert json.loads(done.stdout) == [
        [
            "The user lives in Lyon (home, city, address).",
            "Who the user is: The user lives in Lyon.",
            "Ĉiam respondu mallonge.",
        ],
        [
            ["2024-05-14", "2024-05-14"],
            ["2024-05-06", "2024-05-12"],
            ["2024-05-13", "2024-05-13"],
            ["2023-12-01", "2024-02-29"],
            ["2024-04-28", "2024-05-04"],
        ],
        [[3, 6, 7, 8], [3], [2021]],
        [True, "hieraŭ"],
        [["iam", "kuris", "hieraŭ"], True, True],
        ["Kie mi loĝis", True, "mi venis"],
        [False, False, False, False, True],
        ["user", "anybody", "perhaps", "particular", "world"],
        "mia pasvorto por la pordo estas [password left out]",
        ["hundo", "hundoj"],
        ["About the user: kuris (plan, future)."],
        ["profile"],
        ["zebra", "friends"],
    ]


def patterns(record: object) -> Iterator[str]:
    """Every pattern in a record: what is no plain word."""
    values = [msgspec.to_builtins(record)]
    for value in values:
        if isinstance(value, dict):
            pairs = [value.pop(key, ()) for key in ("completes", "undoes")]
            values += [pattern for table in pairs for pattern, _ in table]
            values += value.values()
        elif isinstance(value, list | tuple):
            values += value
        elif isinstance(value, str):
            yield value


@pytest.mark.parametrize("language", languages(), ids=lambda language: language.name)
def test_every_pattern_of_a_language_is_one(language: Language) -> None:
    for section in (
        *(language.asking, language.dates, language.facts, language.lessons),
        *(language.questions, language.secrets),
    ):
        for pattern in patterns(section) if section else ():
            parts = dict.fromkeys(("value", "values", "name", "thing", "who", "called"), "(.)")
            if language.facts:
                parts |= {**language.facts.values, "opening": language.facts.opening}
            expanded = language.pattern(pattern, **(parts | language.parts))
            assert not re.search(r"\{[^\d,]*\}|\n", expanded), expanded
            re.compile(expanded)


def test_languages_have_an_order_of_their_own() -> None:
    assert [language.rank for language in languages()] == list(range(1, len(languages()) + 1))
    assert languages()[0].name == "English"


def test_a_misspelt_key_or_part_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(msgspec.ValidationError, match="unsur"):
        msgspec.toml.decode(ESPERANTO.replace("unsure =", "unsur ="), type=Language)
    with pytest.raises(KeyError, match="nowhere"):
        languages()[0].pattern("{nowhere}")


def test_the_app_starts_without_reading_them() -> None:
    code = (
        "import tui.app; from ondevice.memory._language import languages as known;"
        "raise SystemExit(known.cache_info().currsize)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_letters_that_only_a_pattern_takes_for_others_are_read() -> None:
    today = date(2024, 5, 15)
    days, _ = _dates.find_days("ſeptember 2020", today)  # a long s
    assert (days.months, days.years) == (frozenset({9}), frozenset({2020}))
    assert _dates.find_days("laſt Monday", today)[0] == _dates.find_days("last Monday", today)[0]
