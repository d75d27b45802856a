"""How often memories come into a reply that they help, and stay out of one that they do not.

The store is filled as the app fills it: one person's turns of the given conversations, without
names, a conversation for each session. Questions about that person are asked in the first person.

- ``ordinary_recalled`` and ``ordinary_no_note``: of 100 requests that have nothing to do with the
  500 turns remembered, those that get memories, and those that are told that there is no note.
- ``told_no_note``: share of the questions about something told that are told there is no note;
  ``told_in_prompt``: share whose telling is in the prompt.
- ``evidence_in_prompt``: share of the turns with the evidence that are in the prompt, the mean over
  questions; ``…_slow``: with the least budget, as on a slow machine.
- ``latest_in_prompt``: of questions about the present state of a series, those that have its
  newest value in the prompt, and last.
- ``never_told_admitted``: share of the questions about what was never told that a model of 1.5
  billion parameters answers with “I don't know”; needs the folder ONDEVICE_TEST_MODELS.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import frame
import msgspec
from memory_chat import DOES_NOT_KNOW, MODEL, answer

from ondevice import llama
from ondevice.chats import recalling
from ondevice.engine import Engine
from ondevice.llama import ChatTemplate, Model
from ondevice.memory import Memory, Recalled
from ondevice.memory._bench import BenchConversation, _day
from ondevice.messages import Load
from ondevice.store import Database

TEXTS = Path(__file__).with_name("texts") / "memory_recall.json"
FILLED = 500  # turns remembered beside what is asked about
BUDGET, LEAST = recalling.MOST, recalling.LEAST
START = datetime(2026, 1, 1, 12, tzinfo=UTC)
#: The same in other languages.
ADMITS = re.compile(
    r"\bnicht (?:sagen|weiß|bekannt)|\bweiß (?:\w+ ){0,2}nicht|\bkeine\w* (?:\w+ )?(?:Info|Angabe)"
    r"|\bkeine\w* \w+ (?:an)?gegeben|ne (?:sais|connais) pas|n'ai pas|no (?:lo )?sé|no tengo"
    r"|не (?:знаю|могу|указан)|нет информации|不知道|没有|無法|无法|わかりません|知りません",
    re.IGNORECASE,
)
SERIES = {
    "What is my weight now?": ("Weighed in this week: {:.1f} kg", 90.0, -0.5),
    "How many followers do I currently have?": ("My channel has {:.0f} followers", 200, 13),
    "How many pages of my thesis are written?": ("My thesis is at {:.0f} pages", 10, 4),
    "Wie viele Kilometer hat mein Auto jetzt?": ("Mein Auto hat {:.0f} Kilometer", 20_000, 700),
}


def measure(cases: Path | None, conversations: Path | None, quick: bool) -> dict[str, float]:
    if cases is None or conversations is None:
        frame.say("silence and evidence are not measured without --cases and --conversations")
        return series()
    talks = msgspec.json.decode(conversations.read_bytes(), type=tuple[BenchConversation, ...])
    probes = json.loads(TEXTS.read_text("utf-8"))
    own = [probes[half] for half in (("tuned_on",) if quick else ("tuned_on", "kept_back"))]
    figures = silence(cases, talks, own) | evidence(talks) | series()
    if not quick:
        slow = evidence(talks, LEAST)
        figures["evidence_in_prompt_slow"] = slow["evidence_in_prompt"]
    if not quick:
        figures |= admitted(cases, talks, own)
    return figures


# ---------------------------------------------------------------- a store as the app fills it


class Person:
    """A store with what one person has typed."""

    def __init__(self, path: Path) -> None:
        self.memory = Memory(Database(path))
        self.cubes: dict[object, int] = {}  # id of the turn → id of the cube
        self._messages = 0

    def tell(self, conversation: int, turns: Sequence[tuple[object, str, datetime]]) -> None:
        with self.memory.database.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO conversation(id, system, created_at, updated_at) "
                "VALUES (?, '', '', '')",
                (conversation,),
            )
            for turn, text, at in turns:
                self._messages += 1
                connection.execute(
                    "INSERT INTO message(id, conversation_id, position, role, content, created_at) "
                    "VALUES (?1, ?2, ?1, 'user', ?3, '')",
                    (self._messages, conversation, text),
                )
                self.cubes[turn] = self.memory.remember_turn(
                    connection,
                    conversation_id=conversation,
                    message_id=self._messages,
                    text=text,
                    at=at,
                ).cube.id

    def ask(self, text: str, at: datetime, budget: int = BUDGET) -> Recalled | None:
        return self.memory.recall(text, budget=budget, count_tokens=tokens, at=at)


@cache
def tokens(text: str) -> int:
    """By the tokenizer of the model that answers, as in the app, or else about so many."""
    template = tokenizer()
    if template is None:
        return len(text.encode()) // 3 + 1
    return len(template.tokenize(text, plain=True, start=False))


@cache
def tokenizer() -> ChatTemplate | None:
    if not (found := frame.models(MODEL)):
        return None
    llama.start(io.StringIO())
    return ChatTemplate(Model(found[0]))


@contextmanager
def person(conversation: BenchConversation | None = None, speaker: str = "") -> Iterator[Person]:
    with TemporaryDirectory(prefix="ondevice-bench-") as folder:
        someone = Person(Path(folder) / "store.db")
        for number, turns in enumerate(sessions(conversation, speaker) if conversation else (), 1):
            someone.tell(number, turns)
        yield someone
        someone.memory.database.close()


def sessions(
    conversation: BenchConversation, speaker: str
) -> list[list[tuple[object, str, datetime]]]:
    found: dict[object, list[tuple[object, str, datetime]]] = {}
    at = START
    for turn in conversation.turns:
        at = _day(turn.when or "") or at
        if turn.speaker == speaker:
            found.setdefault(turn.session, []).append((turn.id, turn.text, at))
    return list(found.values())


def speakers(conversation: BenchConversation) -> list[str]:
    return sorted({turn.speaker for turn in conversation.turns if turn.speaker})


_FIRST_PERSON = (
    (r"\b(?:is|are) {name}\b(?!'s)", "am I"),
    (r"\bwas {name}\b(?!'s)", "was I"),
    (r"\bdoes {name}\b(?!'s)", "do I"),
    (r"\bhas {name}\b(?!'s)", "have I"),
    (r"\b(did|had|will|would|can|could|should|might|do|have) {name}\b(?!'s)", r"\1 I"),
    (r"\b{name}['’]s?(?=\s)", "my"),
    (r"\b(to|for|with|about|of|from|by|at|give|tell|make|help|inspired?) {name}\b", r"\1 me"),
    (r"\b{name} is\b", "I am"),
    (r"\b{name} has\b", "I have"),
    (r"\b{name} does\b", "I do"),
    (r"\b(\w+[^s]s|\w+ing) {name}(?= (?:to|about|a|when)\b|\?)", r"\1 me"),
    (r"\b{name}\b", "I"),
    (r"\b(?:his|her|their)\b", "my"),
    (r"\b(?:he|she|they)\b", "I"),
    (r"\b(?:him|them)\b", "me"),
)


def in_first_person(question: str, name: str) -> str:
    for pattern, said in _FIRST_PERSON:
        question = re.sub(pattern.format(name=name), said, question)
    return question


# ---------------------------------------------------------------- figures


def evidence(talks: Sequence[BenchConversation], budget: int = BUDGET) -> dict[str, float]:
    shares, closed = [], []
    for talk in talks:
        last = max(at for s in speakers(talk) for turns in sessions(talk, s) for _, _, at in turns)
        for name in speakers(talk):
            own = {turn.id for turn in talk.turns if turn.speaker == name}
            with person(talk, name) as someone:
                for question in talk.questions:
                    wanted = own.intersection(question.evidence or ())
                    if question.answerable is False or not wanted or name not in question.question:
                        continue
                    recalled = someone.ask(in_first_person(question.question, name), last, budget)
                    got = {cube.id for cube in recalled.cubes} if recalled else set()
                    cubes = {someone.cubes[turn] for turn in wanted}
                    shares.append(len(cubes & got) / len(cubes))
                    closed.append(not got)
    return {
        "evidence_in_prompt": frame.mean(shares),
        "evidence_gate_shut": frame.mean(closed),
        "evidence_questions": float(len(shares)),
    }


def silence(
    cases: Path, talks: Sequence[BenchConversation], own: Sequence[dict[str, Any]]
) -> dict[str, float]:
    ordinary = json.loads((cases / "ordinary.json").read_text("utf-8"))
    abilities = json.loads((cases / "abilities.json").read_text("utf-8"))
    requests = {
        "": [text for texts in ordinary.values() for text in texts],
        "_own": [text for half in own for text in half["ordinary"]],
    }
    figures: dict[str, float] = {}
    with filled(talks) as someone:
        now = START + timedelta(days=120)
        for kind, texts in requests.items():
            asked = [(text, someone.ask(text, now)) for text in texts]
            with_memories = [
                (text, [cube.content[:60] for cube in recalled.cubes if cube.kind != "lesson"])
                for text, recalled in asked
                if recalled and any(cube.kind != "lesson" for cube in recalled.cubes)
            ]
            unknown = [text for text, recalled in asked if has_no_note(recalled)]
            for text, contents in with_memories:
                frame.say(f"recalled: {text}  {contents[:2]}")
            for text in unknown:
                frame.say(f"no note: {text}")
            figures[f"ordinary_recalled{kind}"] = 100 * len(with_memories) / len(texts)
            figures[f"ordinary_no_note{kind}"] = 100 * len(unknown) / len(texts)
        conversation = 1000
        told: list[tuple[str, set[int]]] = []
        for kind in ("extract", "multi", "time", "update"):
            for item in abilities.get(kind, ()):
                ids = set()
                for turn in item["turns"]:
                    conversation += 1
                    at = START + timedelta(days=turn["day"])
                    someone.tell(conversation, [(conversation, turn["text"], at)])
                    ids.add(someone.cubes[conversation])
                told.append((item["question"], ids))
        of_cases = len(told)
        for half in own:
            for item in half["told"]:
                conversation += 1
                keys = [(f"{conversation}.{n}", text, now) for n, text in enumerate(item["turns"])]
                someone.tell(conversation, keys)
                told += [(q, {someone.cubes[key] for key, _, _ in keys}) for q in item["questions"]]
        never = [item["question"] for item in abilities.get("abstain", ())]
        for kind, some in (("", told[:of_cases]), ("_own", told[of_cases:])):
            no_note, there = [], []
            for question, ids in some:
                recalled = someone.ask(question, now)
                no_note.append(has_no_note(recalled))
                got = _with_sources(someone, recalled)
                there.append(len(ids & got) / len(ids))
                if no_note[-1] or not ids & got:
                    frame.say(f"told: {question}  {'no note' if no_note[-1] else 'not there'}")
            figures[f"told_no_note{kind}"] = frame.mean(no_note)
            figures[f"told_in_prompt{kind}"] = frame.mean(there)
        never += [text for half in own for text in half["never"]]
        figures["never_told_no_note"] = frame.mean(
            has_no_note(someone.ask(text, now)) for text in never
        )
    return figures


def has_no_note(recalled: Recalled | None) -> bool:
    return recalled is not None and recalled.unknown and not recalled.cubes


def _with_sources(someone: Person, recalled: Recalled | None) -> set[int]:
    """The cubes in the prompt, and what the facts in it were read from."""
    ids = {cube.id for cube in recalled.cubes} if recalled else set()
    for cube in recalled.cubes if recalled else ():
        if cube.kind == "fact":
            ids |= {link.to_id for link in someone.memory.history(cube.id).links}
    return ids


@contextmanager
def filled(talks: Sequence[BenchConversation]) -> Iterator[Person]:
    """Somebody of whom that many turns are remembered."""
    with person() as someone:
        left, number = FILLED, 0
        for talk in talks:
            for turns in sessions(talk, speakers(talk)[0]):
                number += 1
                if turns[:left]:
                    someone.tell(number, [((talk.id, t), text, at) for t, text, at in turns[:left]])
                left -= len(turns[:left])
        yield someone


def series() -> dict[str, float]:
    newest = []
    for question, (said, first, step) in SERIES.items():
        with person() as someone:
            for week in range(30):
                someone.tell(
                    week + 1,
                    [(week, said.format(first + step * week), START + timedelta(days=7 * week))],
                )
            recalled = someone.ask(question, START + timedelta(days=7 * 30))
            cubes = recalled.cubes if recalled else ()
            newest.append(bool(cubes) and cubes[-1].id == someone.cubes[29])
    return {"latest_in_prompt": frame.mean(newest)}


def admitted(
    cases: Path, talks: Sequence[BenchConversation], own: Sequence[dict[str, Any]]
) -> dict[str, float]:
    if not (found := frame.models(MODEL)):
        return {}
    abilities = json.loads((cases / "abilities.json").read_text("utf-8"))
    now = START + timedelta(days=120)
    with filled(talks) as someone, Engine() as engine:
        asked = [item["question"] for item in abilities["abstain"]]
        for number, item in enumerate(abilities["abstain"], 1000):
            at = START + timedelta(days=item["turns"][0]["day"])
            someone.tell(number, [(number, item["turns"][0]["text"], at)])
        asked += [text for half in own for text in half["never"]]
        engine.load(Load(path=str(found[0])))
        right = []
        for question in asked:
            recalled = someone.ask(question, now)
            reply = answer(engine, recalled.prompt(question) if recalled else question)
            right.append(bool(DOES_NOT_KNOW.search(reply) or ADMITS.search(reply)))
            frame.say(f"{right[-1]}  {question}  {reply}")
    return {"never_told_admitted": frame.mean(right)}
