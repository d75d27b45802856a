"""What is known of each language: its words and rules, from one file for each.

A language is a file ``language/CODE.toml``. To add one is to add a file; a section that it leaves
out is not known of it. The modules that apply the rules compile them when they are first needed.

A pattern is a regular expression, matched without regard to case where nothing else is said. Its
line breaks, and the blanks after them, are layout. ``{name}`` stands for another pattern: one of
the file's ``[parts]``, or the names in a table of ``[dates]``, such as ``{months}``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from ondevice.checking import work_out
from ondevice.text import UNSPACED

_FOLDER = Path(__file__).with_name("language")
_LAYOUT = re.compile(r"\n[ \t]*")
_PART = re.compile(r"\{([a-z_]+)\}")

#: A group or a choice of letters in an alternative, with what stands before and after it there.
_INNER = re.compile(
    r"(?<![^|(])([^|()\[\]]*)(?:\((?:\?:)?([^()\[\]]*)\)|\[([^\W\d]+)\])(\?)?([^|()\[\]]*)(?=[|)]|$)"
)
#: Letters of a word that :func:`words_in` lists, as shorter ones mean too much else; and where
#: words are not spaced.
_SHORTEST, _SHORTEST_UNSPACED = 4, 2
_UNSPACED = re.compile(f"[{UNSPACED}]")

Pattern = str
NEVER = "(?!)"  # a pattern that matches nothing
Period = Literal["day", "week", "weekend", "month", "year"]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; a misspelt key is an error."""


class Search(_Table, frozen=True, kw_only=True):
    """What to look for."""

    #: Name of Snowball's stemmer for it, where the index's own, for English, does not do.
    snowball: str = ""
    #: Words are written as one: a part of a word is looked for if the word itself is nowhere.
    compounds: bool = False
    #: Letters that no other of the languages has, as in a regular expression between brackets: a
    #: word with one counts like a stop word of it. Where two languages have them, the one of lower
    #: rank counts: Japanese, if some are its own.
    letters: str = ""
    #: Words, apart by blanks, that another language lists in :attr:`like` for something else than
    #: they mean here. Stop words are known without.
    differs: str = ""
    #: What is written before a word as one with it, such as “and” in Arabic; apart by blanks.
    prefixes: str = ""
    #: What stands behind a name and an apostrophe, apart by blanks: “Bursa'da”.
    endings: str = ""
    #: Words, apart by blanks, that questions are made of and that say nothing about what is wanted.
    stop: str = ""
    #: Those of them, apart by blanks, that politeness may write with a capital letter.
    polite: str = ""
    #: The same where words are not spaced: particles, and what questions are made of.
    unspaced_stop: Pattern = ""
    #: Forms of one word that a stemmer does not bring together; a line or a “|” ends a group.
    forms: str = ""
    #: Endings and the like that are written in two ways: “colour” and “color”; each a pattern and
    #: what may stand for it.
    spellings: tuple[tuple[Pattern, str], ...] = ()
    #: Words for what a text may tell without naming it, such as a colour.
    unsaid: str = ""
    #: Words that people use for one another, under a name for what they mean that is the same in
    #: every language, behind a “|” what else is found for them, and behind another one what is a
    #: kind of it: “manager” finds “boss”, “dog” finds “Hund” and “greyhound”, and “greyhound” finds
    #: no other dog. “{job}” stands for the single words among the values of that name under
    #: ``[facts.values]``.
    like: dict[str, str] = {}


class Dates(_Table, frozen=True, kw_only=True):
    """How days are spoken of. Of a month or day of the week, blanks part several forms.

    The patterns in tuples name their groups, and are tried one by one; the longest words count.
    """

    spaced: bool = True  # words are apart
    letters: Pattern = ""  # where they are not: letters by which the language is known
    months: tuple[str, ...]  # from January
    abbreviated: tuple[int, ...] = ()  # so many letters of a month's name stand for it
    unsure: tuple[str, ...] = ()  # months whose names are other words far more often
    also_words: tuple[str, ...] = ()  # and those whose names are other words now and then
    weekdays: tuple[str, ...]  # from Monday
    seasons: dict[str, int]  # first month of each
    feasts: dict[str, str] = {}  # month and day of each, or “easter”, or “easter-2”
    numbers: dict[str, float]
    about: dict[str, float] = {}  # what else tells how many, such as “a few”
    units: dict[str, int]  # how many days each has
    near: dict[str, int]  # days from today
    which: dict[str, int]  # 0: this week, -1: the last one, 1: the next one
    coming: tuple[str, ...] = ()  # words like “next” that also mean the next such day from now on
    #: What “next” means of a day of the week and of a season: the one of the next week, the coming
    #: one; empty where people differ.
    following: Literal["week", "coming", ""] = ""
    periods: dict[str, Period]
    last: tuple[Pattern, ...]  # groups: which, unit (a period, season, feast or weekday), weekday
    ago: tuple[Pattern, ...]  # groups: count, unit
    ahead: tuple[Pattern, ...] = ()  # the same: “in three weeks”
    weekday: tuple[Pattern, ...] = ()  # group: weekday; one such day, not every one
    feast: tuple[Pattern, ...] = ()  # groups: feast, year if need be
    date: tuple[Pattern, ...] = ()  # groups: day, month; if need be first (day) and year
    figures: tuple[Pattern, ...] = ()  # the same, without the name of a month: “20.6.”
    day_alone: tuple[Pattern, ...] = ()  # group: day; “the 20th”
    in_month: tuple[Pattern, ...] = ()  # groups: month, year if need be
    in_season: tuple[Pattern, ...] = ()  # groups: season, year if need be
    in_year: tuple[Pattern, ...] = ()  # group: year
    every: Pattern = ""  # stands before words for days that are not meant as such
    since: Pattern = ""  # stands before a day that was
    due: Pattern = ""  # stands before a day that is to come, whatever the tense
    joins: Pattern = ""  # between clauses
    past: Pattern = ""  # of a clause that tells what was
    to_come: Pattern = ""  # of one that tells what is to come, beyond doubt
    plans: Pattern = ""  # of one that tells what was, perhaps for days to come: “I booked”
    either: Pattern = ""  # of one that may tell of either
    usual: Pattern = ""  # of one that tells what is done again and again
    mine: Pattern = ""  # “I”, “me” and “my”
    #: Words of a question such as “What did I do yesterday?” beside those that say when.
    doing: Pattern = ""
    telling: Pattern = ""  # and of “What did I tell you yesterday?”
    season: Pattern = ""  # group 1 is the season, in words that make it one
    unsure_month: Pattern = ""  # the group that matches is the month, beside what makes it one
    day: Pattern  # group 1 is the day of the month
    says_when: Pattern = ""  # of a text that says when something was, is or will be


class Asking(_Table, frozen=True, kw_only=True):
    """What only asks for something and tells nothing."""

    polite: Pattern = ""  # words before a request or a question
    requests: Pattern = ""  # how one begins
    request_ends: Pattern = ""  # how one ends, where it stands at the end
    questions: Pattern = ""  # how one begins
    small_talk: Pattern = ""  # greetings, thanks, yes and no
    tasks: Pattern = ""  # how a request begins that works on a text or plays a part


class FactPatterns(_Table, frozen=True, kw_only=True):
    """What tells a fact about the user, and what ends one.

    The patterns of ``states``, ``ends`` and ``others`` are for the kinds of ``_fact_kinds.py``. In
    them ``{value}`` stands for what the fact says, and ``{who}`` for one of the ``people``.
    """

    spaced: bool = True  # words are parted by blanks
    capitals: bool = True  # a word in the middle of a sentence with a capital letter is a name
    user: Pattern  # what every statement about the user has somewhere
    opening: Pattern  # words before a statement that say nothing
    joins: Pattern  # words that end a value and begin another statement
    bounds: Pattern = ""  # words that end a value and go on with the same
    lists: Pattern = ""  # words between values, or between statements
    after: Pattern = ""  # what may follow a value and takes nothing back
    unsure: Pattern  # a sentence with it tells nothing about the user
    #: What a statement leaves out that goes on with the user, and it with what was left out: “and
    #: work in” → “, I work in”.
    completes: tuple[tuple[Pattern, str], ...] = ()
    #: What makes a statement one of what is no longer so, or never was, and the statement without:
    #: “used to” → nothing.
    undoes: tuple[tuple[Pattern, str], ...] = ()
    #: What says in a few words that what stands before it is not so: “just kidding”.
    takes_back: Pattern = ""
    doubtful: Pattern  # nor does one with it for certain: no, almost, until, he
    not_values: Pattern = ""  # how no value begins
    values: dict[str, Pattern] = {}  # what is certain to be a value of this sort: a job, a diet
    people: dict[str, Pattern] = {}  # English name of a relation or an animal → what it is called
    #: English name of what people have a favourite of → what it is called.
    things: dict[str, Pattern] = {}
    states: dict[str, tuple[Pattern, ...]]
    #: What tells by the way of a new home or job, by what a question for it asks for.
    hints: dict[str, Pattern] = {}
    others: dict[str, tuple[Pattern, ...]] = {}  # the same of somebody else
    ends: dict[str, tuple[Pattern, ...]] = {}  # by kind: it is so no longer
    corrects: tuple[Pattern, ...] = ()  # what was said last had another value
    #: How a message begins that only gives another value to what was said before: “I misread”,
    #: “down to”; and what stands between that and the value: “it's”.
    revises: Pattern = ""
    revised: Pattern = ""
    denies: Pattern = ""  # what follows is not so
    allows: Pattern = ""  # a lesson holds no longer


class Lessons(_Table, frozen=True, kw_only=True):
    """What tells how replies should be."""

    sign: Pattern  # what every lesson has somewhere
    hearsay: Pattern = "(?!)"  # a sentence with it tells how somebody else wants things
    opening: Pattern  # words before a lesson that are no part of it
    closing: Pattern  # and after it
    general: tuple[Pattern, ...]  # lessons wherever they stand
    alone: tuple[Pattern, ...]  # lessons if nothing else is said
    #: Of each of these there is one lesson at a time. The first one whose words are in it counts.
    topics: dict[str, Pattern]


class Alike(NamedTuple):
    """The words of a meaning in :attr:`Search.like`."""

    words: list[str]  # that are used for one another
    others: list[str]  # that are found for them
    kinds: list[str]  # the same, for a kind of it

    @classmethod
    def of(cls, listed: str) -> Alike:
        words, others, kinds = (part.split() for part in f"{listed}||".split("|")[:3])
        return cls(words, others, kinds)


class Questions(_Table, frozen=True, kw_only=True):
    """Questions about the user and their past."""

    when: tuple[str, ...] = ()  # how a question for a time begins
    anchor: Pattern = NEVER  # groups: before or after, event; “before I moved”
    once: Pattern = NEVER  # asks for what was so and is no longer
    now: Pattern = NEVER  # asks expressly for what is so now
    present: Pattern = NEVER  # asks in the present
    wish: Pattern = ""  # says that the user wants to know what follows, or precedes
    about_user: Pattern = ""  # only what the user has told can answer it
    advice: Pattern = ""  # though it asks for advice
    general: Pattern = ""  # though anybody could ask it
    mentions: Pattern = ""  # speaks of the user at least
    first_person: Pattern = ""  # what a statement of the user's has, besides: forms of verbs
    impersonal: Pattern = ""  # though “I” and “we” may be anybody in it
    articles: str = ""  # words before the name of a thing, apart by blanks
    #: Group 1: a verb right behind a thing, which names none: “does my choir meet”.
    verb_behind: Pattern = NEVER
    definite: Pattern = NEVER  # before whom everybody at home knows: “the” twins
    own: Pattern = ""  # a thing of the user's, where an ending or the word itself says so
    particular: Pattern = ""  # asks about somebody or something that the user may have told of
    profile: Pattern = NEVER  # asks for all that is known about the user
    implied: str = ""  # words of a question that an answer seldom repeats, apart by blanks: “pay”
    #: What begins and what ends it: “buy” and “sell”, “born” and “dead”; in every language the same
    #: in the same order. A text with one of them does not tell of the other.
    opposites: tuple[tuple[Pattern, Pattern], ...] = ()
    #: What a question asks for, by kind (see ``_answers.py``), and what a text has that tells it.
    asks: dict[str, Pattern] = {}
    tells: dict[str, Pattern] = {}


class Forgetting(_Table, frozen=True, kw_only=True):
    """What is not to be remembered, and what is too little to look for when it is forgotten."""

    unwanted: Pattern = ""  # how a clause begins that says so of its own message: “don't save this”
    request: Pattern = ""  # how one begins that asks to forget what was said before
    ordinary: str = ""  # words, apart by blanks, that tell nothing alone, besides stop words
    unspaced_ordinary: Pattern = ""  # the same where words are not spaced


class Secrets(_Table, frozen=True, kw_only=True):
    """How a secret is told: “my PIN for the door is …”. The first four are what it is called."""

    names: Pattern  # of what may be a word
    codes: Pattern = ""  # of what has digits in it
    numbers: Pattern = ""  # of what an authority gives a person
    phrases: Pattern = ""  # of a dozen words
    of: Pattern = ""  # between the name and what it is for
    equals: Pattern  # between that and the secret
    after: Pattern = ""  # behind the secret: “… is my password”
    ordinary: Pattern = ""  # words that are said of a password and are none


class Whose(_Table, frozen=True, kw_only=True):
    """How a language says whose somebody or something is."""

    mine: Pattern = ""  # a word for what is the user's: “my”
    theirs: Pattern = ""  # and for what is somebody else's: “her”
    they: Pattern = ""  # stands for somebody else, or behind their name: “she”
    owns: Pattern = ""  # stands behind an owner, before who is theirs: “my boss's dog”
    owned: Pattern = ""  # stands before an owner, behind who is theirs: “the dog of my boss”
    has: Pattern = ""  # stands between an owner and who is theirs: “my boss has a dog”
    others: Pattern = ""  # stands behind who is not the user's: “the dog next door”
    ours: Pattern = ""  # stands behind who is: “a friend of mine”
    never: Pattern = ""  # stands before what is not so


class Pronouns(_Table, frozen=True, kw_only=True):
    """Words for persons, apart by blanks."""

    user: str
    others: str
    addressed: str = ""  # who is spoken to


class Language(_Table, frozen=True, kw_only=True):
    """All that is known of a language."""

    name: str
    rank: int  # of two languages that fit a text equally well, the one with the lower is meant
    #: What stands before a person's name, apart by blanks and without a dot: “mrs”.
    titles: str = ""
    parts: dict[str, Pattern] = {}
    search: Search = Search()
    dates: Dates | None = None
    asking: Asking = Asking()
    facts: FactPatterns | None = None
    lessons: Lessons | None = None
    questions: Questions | None = None
    forgetting: Forgetting = Forgetting()
    secrets: Secrets | None = None
    pronouns: Pronouns | None = None
    whose: Whose | None = None

    def pattern(self, template: Pattern, **parts: str) -> str:
        """A regular expression: ``template`` with its parts, and these, put in.

        Raises :class:`KeyError` for a part that there is not.
        """
        known = self.parts | parts
        expanded = _LAYOUT.sub("", template.strip("\n"))
        while _PART.search(expanded):
            expanded = _PART.sub(lambda found: _LAYOUT.sub("", known[found[1]]), expanded)
        return expanded

    def compile(self, template: Pattern, **parts: str) -> re.Pattern[str]:
        """:meth:`pattern` without regard to case."""
        return re.compile(self.pattern(template, **parts), re.IGNORECASE)


@cache
def titles() -> frozenset[str]:
    """Words before the name of a person, in any language."""
    return frozenset(title for language in languages() for title in language.titles.split())


@cache
def dots_of_titles() -> Pattern:
    """A dot behind a title: it ends no sentence, nor a name."""
    by_length: dict[int, list[str]] = {}  # what stands before has to be of one length
    for title in sorted(titles()):
        by_length.setdefault(len(title), []).append(re.escape(title))
    return "|".join(rf"(?<=\b(?:{'|'.join(same)}))\." for same in by_length.values())


def _names(dates: Dates) -> dict[str, str]:
    """The names in each table as a pattern, the longest first."""
    months = forms_of(dates.months)
    other_words = dates.unsure + dates.also_words
    names: dict[str, Iterable[str]] = {
        "months": months,
        "only_months": [name for name in months if name not in other_words],
        "all_months": months_of(dates),
        "feasts": dates.feasts,
        "counts": dates.numbers | dates.about,
        "sure_months": [name for name in months_of(dates) if name not in dates.unsure],
        "unsure_months": dates.unsure,
        "weekdays": forms_of(dates.weekdays),
        "seasons": dates.seasons,
        "numbers": dates.numbers,
        "about": dates.about,
        "units": dates.units,
        "near": dates.near,
        "which": [*dates.which, *dates.coming],
        "periods": dates.periods,
    }
    return {
        name: "|".join(sorted(map(re.escape, words), key=len, reverse=True))
        for name, words in names.items()
    }


def forms_of(names: Iterable[str]) -> dict[str, int]:
    """Each form of each of the names, with the number of the name, from 0."""
    return {form: number for number, forms in enumerate(names) for form in forms.split()}


def months_of(dates: Dates) -> dict[str, int]:
    """Each form of the name of each month, shortened ones too, with its number, from 1."""
    return {
        form[:length]: number + 1
        for form, number in forms_of(dates.months).items()
        for length in (*dates.abbreviated, len(form))
    }


def words_in(pattern: Pattern) -> list[str]:
    """The single words that ``pattern`` matches, as far as it lists them, in lower case.

    Those of an alternative that has any word for a part of it are not listed.
    """
    plain = _LAYOUT.sub("", pattern)
    while plain != (flat := _INNER.sub(_each, plain)):
        plain = flat
    words = (re.sub(r"(?:[^\W\d_]|-)\?", "", plain), plain.replace("?", ""))
    listed = dict.fromkeys(word for some in words for word in some.strip("(:)").split("|"))
    return [
        word
        for word in listed
        if all(unicodedata.category(char)[0] in "LM" for char in word)
        and len(word) >= (_SHORTEST_UNSPACED if _UNSPACED.match(word) else _SHORTEST)
    ]


def _each(found: re.Match[str]) -> str:
    """Each word that a group in the middle of a word makes of it."""
    before, inner, letters, optional, after = found.groups()
    ends = list(letters) if letters else inner.split("|")
    return "|".join(f"{before}{end}{after}" for end in (*ends, *([""] if optional else [])))


work_out(Language)


@cache
def languages() -> tuple[Language, ...]:
    """All languages that are known, by rank."""
    return tuple(sorted(map(_read, _FOLDER.glob("*.toml")), key=lambda language: language.rank))


def language_called(name: str) -> Language:
    """The one of this name, such as “English”."""
    return next(language for language in languages() if language.name == name)


def _read(file: Path) -> Language:
    language = msgspec.toml.decode(file.read_bytes(), type=Language)
    names = _names(language.dates) if language.dates else {}
    return msgspec.structs.replace(language, parts=language.parts | names)


def words_for_questions(words_of: Callable[[Questions], str]) -> frozenset[str]:
    """Words that stand apart by blanks in a table of questions, those of all languages."""
    return frozenset(
        word
        for language in languages()
        if language.questions
        for word in words_of(language.questions).split()
    )


def any_of(pattern_of: Callable[[Language], Pattern]) -> str:
    """What matches a pattern of any language: one expression, without those that have none."""
    return "|".join(
        language.pattern(pattern) for language in languages() if (pattern := pattern_of(language))
    )
