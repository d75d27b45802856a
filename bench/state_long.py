"""What is still known in a chat that is three times as long as its context, by what is done then.

As much of a conversation as fills the context three times is said: one speaker is the user, the
other one the model. Then questions about the first third, the middle and the last are asked, each
in a branch of its own. A question is one about the user, in the first person, whose evidence the
user said within one third; an answer is right when it has at least half of the words of the answer
that the file gives. Of all parts of all conversations, those with most questions are taken.

- ``drop``: the oldest exchanges leave the context; ``drop_recall``: the memory is asked as well.
- ``compact``, ``compact_recall``: the same with a summary in place of what has left, written as the
  app has it written, after each exchange after which it is due.
- ``retain``: no text leaves, but tokens of the KV cache do: those stay that were least expected
  when they came, with the first and the last ones, moved together (SirLLM, arXiv 2405.12528).
- ``…_first``, ``…_middle``, ``…_last``: share of right answers; ``…_tokens``: of a prompt, the
  mean; ``…_reread_s``: seconds of all talks in which tokens are read again while the user waits, by
  the speed of the same run; ``…_idle_s``: the same and what is written while nobody waits.
- ``long_talk_gain``: right answers about the first third, of the best way / of dropping, which
  counts as one where there are none.

Needs qwen2.5-coder-1.5b-instruct-q4_k_m.gguf in the folder ONDEVICE_TEST_MODELS.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import frame
import llama_cpp
import msgspec
import numpy as np
from memory_chat import MODEL
from memory_use_recall import in_first_person

from ondevice import llama
from ondevice.chats import Chats, compact, recalling
from ondevice.chats._chats import append
from ondevice.engine import Engine
from ondevice.engine._prompt import Prompter
from ondevice.engine._states import common_prefix
from ondevice.llama import ChatTemplate, Context, Model
from ondevice.messages import (
    Chunk,
    Finished,
    Generate,
    Load,
    Sampling,
    Statistics,
    Turn,
)
from ondevice.store import Database

N_CTX = 1024
TALKS = 1
CONTEXTS = 3  # times as long as the context
SYSTEM = "You are a helpful assistant. Answer in one sentence. Say so if you do not know."
REPLY = 40  # tokens of an answer at most
ASKED, QUICK_ASKED = 5, 2  # about each third of a conversation at most
THIRDS = ("first", "middle", "last")
BATCH = 32  # tokens whose logits are looked at together
_WORD = re.compile(r"[a-z0-9]+")
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by for from he her his i in is it its my of on or she that the "
        "their they to was were with you your him them this has have had not",
    )
)


class _Told(msgspec.Struct, frozen=True):
    id: str
    speaker: str
    text: str


class _Asked(msgspec.Struct, frozen=True):
    question: str
    answer: Any = ""
    category: int = 0
    evidence: tuple[str, ...] = ()
    answerable: bool = True


class _Talk(msgspec.Struct, frozen=True):
    turns: tuple[_Told, ...]
    questions: tuple[_Asked, ...]


@dataclass
class _Script:
    """What is said in a chat, and what is asked then."""

    said: list[tuple[str, str]] = field(default_factory=list)  # role and text
    asked: list[tuple[int, str, str]] = field(default_factory=list)  # third, question, answer

    @property
    def counts(self) -> list[int]:
        """How many questions there are about each third."""
        return [sum(asked[0] == third for asked in self.asked) for third in range(3)]


@dataclass
class _Score:
    right: list[list[bool]] = field(default_factory=lambda: [[], [], []])  # by third
    tokens: list[int] = field(default_factory=list)
    reread_s: float = 0.0
    idle_s: float = 0.0


def measure(conversations: Path | None, quick: bool) -> dict[str, float]:
    if conversations is None or not (found := frame.models(MODEL)):
        frame.say("long talks are not measured without --conversations and a model")
        return {}
    talks = msgspec.json.decode(conversations.read_bytes(), type=tuple[_Talk, ...])
    scores: dict[str, _Score] = {}
    llama.start(io.StringIO())
    model = Model(found[0])
    template = ChatTemplate(model)
    scripts = sorted(
        (
            one
            for talk in talks
            for user in sorted({turn.speaker for turn in talk.turns})
            for one in parts(talk, user, CONTEXTS * N_CTX, template)
        ),
        key=lambda one: (
            min(one.counts),
            len(one.asked),
        ),
        reverse=True,
    )[:TALKS]
    for one in scripts if quick else ():
        asked = [[each for each in one.asked if each[0] == third] for third in range(3)]
        one.asked = [each for some in asked for each in some[:QUICK_ASKED]]
    with Engine() as engine:
        engine.load(Load(path=str(found[0]), n_ctx=N_CTX))
        for one in scripts:
            in_app(engine, model, one, N_CTX, scores)
            retained(model, template, one, N_CTX, scores.setdefault("retain", _Score()))
            for way, score in scores.items():
                frame.say(f"{way} {[(sum(right), len(right)) for right in score.right]}")
    figures: dict[str, float] = {}
    for way, score in scores.items():
        for third, right in zip(THIRDS, score.right, strict=True):
            figures[f"long_{way}_{third}"] = frame.mean(right)
        figures[f"long_{way}_tokens"] = frame.mean(score.tokens)
        figures[f"long_{way}_reread_s"] = score.reread_s
        figures[f"long_{way}_idle_s"] = score.idle_s
    figures["long_questions"] = sum(len(one.asked) for one in scripts)
    best = max(figures[f"long_{way}_first"] for way in scores)
    figures["long_talk_gain"] = best / max(
        figures["long_drop_first"], 1 / len(scores["drop"].right[0])
    )
    return figures


# ---------------------------------------------------------------- what is said and asked


def parts(talk: _Talk, user: str, n_tokens: int, template: ChatTemplate) -> Iterator[_Script]:
    """The parts of a talk that have so many tokens each, one speaker as the user."""
    at = 0
    while at < len(talk.turns):
        made, places, used = _Script(), {}, 0
        for turn in talk.turns[at:]:
            used += len(template.tokenize(turn.text, plain=True, start=False)) + 4
            if used > n_tokens:
                break
            at += 1
            role = "user" if turn.speaker == user else "assistant"
            places[turn.id] = (used * 3 // (n_tokens + 1), role)
            if made.said and made.said[-1][0] == role:
                made.said[-1] = (role, f"{made.said[-1][1]}\n{turn.text}")
            elif made.said or role == "user":
                made.said.append((role, turn.text))
        else:
            return  # the rest is shorter
        for question in talk.questions:
            of = {places.get(turn, (-1, "")) for turn in question.evidence}
            if len(of) != 1 or question.category not in (1, 4) or not question.answerable:
                continue
            ((third, role),) = of
            fits = third >= 0 and role == "user" and user in question.question
            if fits and made.counts[third] < ASKED:
                asked = in_first_person(question.question, user)
                expected = re.sub(r"\(.*?\)", "", str(question.answer))
                made.asked.append((third, asked, expected))
        yield made


def is_right(reply: str, expected: str) -> bool:
    """Whether at least half of the words of an answer are in a reply, in any form."""
    said = {word[:5] for word in _WORD.findall(reply.lower())}
    words = {word[:5] for word in _WORD.findall(expected.lower()) if word not in _STOP}
    return bool(words) and len(words & said) * 2 >= len(words)


# ---------------------------------------------------------------- as the app has it


def in_app(
    engine: Engine, model: Model, one: _Script, n_ctx: int, scores: dict[str, _Score]
) -> None:
    for compacting in (False, True):
        name = "compact" if compacting else "drop"
        with TemporaryDirectory(prefix="ondevice-bench-") as folder:
            chats = Chats(Database(Path(folder) / "store.db"))
            id_ = chats.create(SYSTEM)
            idle_s = 0.0
            changed = 0  # times there was a new summary
            for role, text in one.said:
                if role == "user":
                    chats.say(id_, text)
                    continue
                with chats.database.write() as connection:
                    (end,) = connection.execute(
                        "SELECT end_id FROM conversation WHERE id = ?", (id_,)
                    ).fetchone()
                    append(connection, id_, "assistant", text, parent_id=end)
                began = time.perf_counter()
                begun = False
                while compacting and compact(chats, engine, id_, begun=begun):
                    begun = True
                changed += begun
                idle_s += time.perf_counter() - began if compacting else 0.0
            if compacting:
                for message in chats.load(id_).messages[::-1]:
                    if message.summary:
                        frame.say(message.summary.content)
                        break
            first: int | None = None
            speed = 0.0
            for recall in (False, True):
                score = scores.setdefault(f"{name}_recall" if recall else name, _Score())
                for third, question, expected in one.asked:
                    said = chats.say(
                        id_,
                        question,
                        instead_of=first,
                        recall=recalling.budget(engine.loaded) if recall else 0,
                        count_tokens=recalling.counter(engine),
                        n_ctx=n_ctx,
                    )
                    first = first or said.message_id
                    turns = chats.load(id_, until=said.message_id).turns()
                    reply, statistics = answer(engine, turns)
                    score.right[third].append(is_right(reply, expected))
                    score.tokens.append(statistics.prompt_tokens)
                    if statistics.prompt_tokens - statistics.reused_tokens > n_ctx // 8:
                        speed = speed or statistics.prompt_per_second
                    frame.say(
                        f"{name} {recall} {THIRDS[third]} {score.right[third][-1]}  {question}  "
                        f"{expected}  {reply.strip()}"
                    )
                if not compacting:
                    score.reread_s += reread(model, one, n_ctx) / speed
                else:
                    # What stays is read again after each summary, while nobody waits.
                    score.idle_s += idle_s + changed * n_ctx * 0.4 / speed
            chats.database.close()


def answer(engine: Engine, turns: Sequence[Turn]) -> tuple[str, Statistics]:
    request = Generate(turns=tuple(turns), sampling=Sampling(temperature=0), max_tokens=REPLY)
    text = ""
    for event in engine.generate(request):
        if isinstance(event, Chunk):
            text += event.text
        elif isinstance(event, Finished):
            return text, event.statistics
    raise AssertionError


def reread(model: Model, one: _Script, n_ctx: int) -> int:
    """Tokens that are read a second time because others have left, in the whole talk."""

    class Fixed:
        n_ctx: int

        def want_context(self, n_tokens: int) -> None: ...

    room = Fixed()
    room.n_ctx = n_ctx
    prompter = Prompter(model, room)
    turns, total = [Turn("system", SYSTEM)], 0
    spelling: list[int] = []
    for role, text in one.said:
        turns.append(Turn(role, text))  # type: ignore[arg-type]
        if role == "user":
            prompt = prompter.prompt(turns, spelling, room=n_ctx // 4)
            if prompt.left_out:
                new = len(prompt.tokens) - common_prefix(prompt.tokens, spelling)
                total += new - prompter.count(text)
            spelling = prompt.tokens
    return total


# ---------------------------------------------------------------- in the KV cache


class _Retaining:
    """A context that makes room by giving up the tokens that were best expected."""

    FIRST = 32  # tokens that always stay: the beginning of the system prompt
    LAST = 4  # one part of the context stays as it is

    def __init__(self, model: Model, n_ctx: int) -> None:
        self.n_ctx = n_ctx
        self.context = Context(model, n_ctx=n_ctx, n_threads=2, max_outputs=BATCH)
        self.surprise: list[float] = []  # of each token in the cache
        self._expected: np.ndarray | None = None  # log probabilities of the next token

    def read(self, tokens: Sequence[int]) -> None:
        for at in range(0, len(tokens), BATCH):
            batch = list(tokens[at : at + BATCH])
            if len(self.surprise) + len(batch) > self.n_ctx * 7 // 8:
                self.evict(self.n_ctx // 4)
            self.context.decode(batch, n_outputs=len(batch))
            rows = np.stack([self.context.logits(len(batch) - i) for i in range(len(batch))])
            logs = rows - np.logaddexp.reduce(rows.astype(np.float64), axis=1, keepdims=True)
            before = [self._expected, *logs[:-1]]
            self.surprise += [
                0.0 if row is None else float(-row[token])
                for row, token in zip(before, batch, strict=True)
            ]
            self._expected = logs[-1]

    def evict(self, n_tokens: int) -> None:
        """Give up so many tokens, and move the others together."""
        length = len(self.surprise)
        old = range(self.FIRST, length - self.n_ctx // self.LAST)
        going = set(sorted(old, key=self.surprise.__getitem__)[:n_tokens])
        memory = llama_cpp.llama_get_memory(self.context.handle)
        place, run, at = 0, 0, 0
        while at < length:
            run = at
            while run < length and (run in going) == (at in going):
                run += 1
            if at in going:
                llama_cpp.llama_memory_seq_rm(memory, 0, at, run)
            else:
                if place < at:
                    llama_cpp.llama_memory_seq_add(memory, 0, at, run, place - at)
                place += run - at
            at = run
        kept = [i for i in range(length) if i not in going]
        self.surprise = [self.surprise[i] for i in kept]
        self.context.tokens[:] = [self.context.tokens[i] for i in kept]


def retained(model: Model, template: ChatTemplate, one: _Script, n_ctx: int, score: _Score) -> None:
    kept = _Retaining(model, n_ctx)
    turns = [Turn("system", SYSTEM), *(Turn(role, text) for role, text in one.said)]  # type: ignore[arg-type]
    begun = template.render([*turns, Turn("user", "?")])
    body = begun[: begun.rindex("?")]
    kept.read(template.tokenize(body))
    length = len(kept.surprise)
    for third, question, expected in one.asked:
        whole = template.render([*turns, Turn("user", question)])
        asked = template.tokenize(whole[len(body) :], start=False)
        kept.context.decode(asked)
        reply = "".join(greedy(kept.context, model))
        kept.context.truncate(length)
        score.right[third].append(is_right(reply, expected))
        score.tokens.append(length + len(asked))
        frame.say(
            f"retain {THIRDS[third]} {score.right[third][-1]}  {question}  {expected}  {reply}"
        )
    kept.context.close()


def greedy(context: Context, model: Model) -> Iterator[str]:
    for _ in range(REPLY):
        token = int(np.argmax(context.logits()))
        if model.is_end(token):
            return
        yield model.piece(token).decode("utf-8", "replace")
        context.decode([token])
