"""The kinds of facts about the user that rules read: topic, sentence and sort of value of each."""

from __future__ import annotations

from typing import NamedTuple


class FactKind(NamedTuple):
    topic: str
    content: str  # of a fact about the user
    sort: str  # of its value, see _values.py
    sure: bool = True  # it can be certain
    open: bool = False  # whatever the sentence goes on to say


KINDS = {
    "name": FactKind("name", "The user's name is {value}.", "name"),
    "intro": FactKind("name", "The user's name is {value}.", "capital_name", False),
    "nickname": FactKind(
        "name called", "The user is called {value} (name, nickname).", "capital_name", False
    ),
    "home": FactKind("home", "The user lives in {value} (home, city, address).", "named_place"),
    "moved": FactKind(
        "home", "The user lives in {value} (home, city, address).", "place", open=True
    ),
    "nearby": FactKind("home", "The user lives near {value} (home, city).", "named_place", False),
    "origin": FactKind("origin", "The user is from {value} (origin).", "place"),
    "birthplace": FactKind("birth place", "The user was born in {value} (birth).", "place"),
    "upbringing": FactKind("origin upbringing", "The user grew up in {value} (origin).", "place"),
    "work": FactKind("work", "The user works as {value} (job, profession).", "work"),
    "job": FactKind("work", "The user works as {value} (job, profession).", "job"),
    "trade": FactKind("work", "The user works as {value} (job, profession).", "trade"),
    "field": FactKind("work field", "The user works in {value} (job).", "anything", False),
    "teaches": FactKind("work subject", "The user teaches {value} (job).", "anything", False),
    "employer": FactKind("employer", "The user works for {value} (job, employer).", "org"),
    "studies": FactKind(
        "work studies", "The user studies {value} (university).", "anything", False
    ),
    "birthday": FactKind("birthday", "The user's birthday is {value}.", "date"),
    "birth": FactKind("birth", "The user was born {value} (birth, birthday, age).", "birth"),
    "age": FactKind("birth age", "The user is {value} years old (age).", "age"),
    "allergy": FactKind(
        "allergy to {value}", "The user is allergic to {value} (allergy).", "allergen"
    ),
    "health": FactKind("health: {value}", "The user has {value} (health, illness).", "condition"),
    "medicine": FactKind(
        "health: takes {value}", "The user takes {value} (health, medicine).", "medicine"
    ),
    "diet": FactKind("diet", "The user is {value} (diet, food).", "diet"),
    "avoids": FactKind("diet without {value}", "The user avoids {value} (diet, food).", "avoided"),
    "favourite": FactKind(
        "favourite {thing}", "The user's favourite {thing} is {value}.", "favourite"
    ),
    "likes": FactKind("likes: {value}", "The user likes {value} (likes).", "anything", False),
    "dislikes": FactKind("dislikes: {value}", "The user dislikes {value}.", "anything", False),
    "speaks": FactKind("skill: speaks", "The user speaks {value} (languages).", "tongue"),
    "plays": FactKind("hobby: plays {value}", "The user plays {value} (hobby).", "anything", False),
    "owns": FactKind("belonging: {value}", "The user has {value} (belonging).", "anything", False),
    "person": FactKind("name of {who}", "The user's {who} is called {value}.", "person"),
    "introduced": FactKind(  # “my wife Sofia …”
        "name of {who}", "The user's {who} is called {value}.", "person", open=True
    ),
    "called": FactKind(
        "name of {who}", "The user's {who} is called {value}.", "capital_name", False
    ),
    "partner": FactKind("name of partner", "The user's partner is called {value}.", "person"),
    "children": FactKind(
        "family children", "The user has {value} children (family).", "age", False
    ),
}
BESIDES = ("intro", "called")  # they are looked for last, and only where nothing else is
#: The same of a person, who is ``{who}``: always proposed, since nobody else can confirm it.
OF_OTHERS = {
    "home": ("home of {who}", "{Who} lives in {value} (home, city, address)."),
    "work": ("work of {who}", "{Who} works as {value} (job, profession)."),
    "job": ("work of {who}", "{Who} works as {value} (job, profession)."),
    "employer": ("employer of {who}", "{Who} works for {value} (job, employer)."),
    "birthday": ("birthday of {who}", "{Who}'s birthday is {value}."),
    "allergy": ("allergy of {who} to {value}", "{Who} is allergic to {value} (allergy)."),
    "diet": ("diet of {who}", "{Who} is {value} (diet, food)."),
    "age": ("birth of {who}", "{Who} is {value} years old (age)."),
}
#: Of these relations people have more than one at a time.
SEVERAL = frozenset(
    {"friend", "brother", "sister", "son", "daughter", "child", "kids", "aunt", "uncle"}
    | {"cousin", "nephew", "niece", "grandchild", "colleague", "neighbour", "flatmate"}
)
#: Of these there are several.
MANY = frozenset({"kids", "twins", "parents", "siblings", "dogs", "cats"})
