"""Thinking that is ended before the model ends it: at a limit, or when the user wants no more."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from gguf import TokenType

from ondevice import llama
from ondevice.engine import Engine
from ondevice.engine._loading import load_model
from ondevice.engine._room import Room
from ondevice.engine._session import Session
from ondevice.engine._states import common_prefix
from ondevice.llama import Context, Model, Sampler
from ondevice.messages import Chunk, Event, Finished, Generate, Load, Sampling, Turn

TALK = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
END = "</s>"
HARMONY = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>")
FINAL = "<|start|>assistant<|channel|>final<|message|>"

#: What the prompt ends with, the model's marks, what it says first, and what ends its thinking.
FAMILIES = {
    "opened by the template": ("<think>\n", ("<think>", "</think>"), "", "\n</think>\n\n"),
    "opened by the model": ("", ("<think>", "</think>"), "<think>", "\n</think>\n\n"),
    "marks in letters": ("<think>\n", (), "", "\n</think>\n\n"),
    "no white space": (
        "<|START_THINKING|>",
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        "",
        "<|END_THINKING|>",
    ),
    "a mark for the answer": (
        "<|open|>think<|sep|>",
        ("<|open|>", "<|close|>", "<|sep|>"),
        "",
        "<|close|>think<|sep|><|open|>response<|sep|>",
    ),
    "channels": (
        "<|start|>assistant",
        HARMONY,
        "<|channel|>analysis<|message|>",
        f"<|end|>{FINAL}",
    ),
    "channels opened by the template": (
        "<|start|>assistant<|channel|>analysis<|message|>",
        HARMONY,
        "",
        f"<|end|>{FINAL}",
    ),
}


class Talker:
    """A session whose model says what it is told to say; what it decodes is real."""

    def __init__(self, path: Path) -> None:
        llama.start(io.StringIO())
        self._held = load_model(
            Load(path=str(path), n_ctx=512, n_threads=1), lambda _: None, threading.Event()
        )
        self._room = Room(self._held, None, lambda _: None, lambda: None)
        self._session = Session(self._held, self._room)
        self.model: Model = self._held.model
        self.context: Context = self._held.context
        self.answer_now = threading.Event()

    def tokens(self, text: str) -> list[int]:
        """Marks, and bytes."""
        found: list[int] = []
        for part in re.split(r"(<[^<>]+>)", text):
            tokens = self.model.tokenize(part, parse_special=True)
            whole = len(tokens) == 1
            found += tokens if whole else [3 + byte for byte in part.encode()]
        return found

    def close(self) -> None:
        self._session.close()
        self._room.close()
        self._held.close()

    def says(self, *pieces: str, **options: Any) -> Iterator[Event]:
        """The events of a reply; where the thinking is ended, it goes on with the next piece."""
        scripts = [self.tokens(piece) for piece in pieces]

        def draw(sampler: Sampler, _: object) -> int:
            return scripts[0].pop(0)

        def accept(sampler: Sampler, tokens: list[int]) -> None:
            del scripts[0]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Sampler, "sample_from", draw)
            patch.setattr(Sampler, "sample", draw)
            patch.setattr(Sampler, "accept", accept)
            options.setdefault("turns", (Turn("user", "Hi"),))
            request = Generate(**options)
            yield from self._session.reply(request, threading.Event(), answer_now=self.answer_now)

    def rest(self, is_wanted: Callable[[], bool]) -> None:
        self._session.rest(is_wanted)

    def reply(self, *pieces: str, **options: Any) -> tuple[str, str, Finished]:
        return parts(list(self.says(*pieces, **options)))

    @property
    def read(self) -> str:
        """All that the model has read."""
        return self.model.text(self.context.tokens, special=True)


def parts(events: list[Event]) -> tuple[str, str, Finished]:
    """The thinking, the answer and the end of a reply."""
    finished = events[-1]
    assert isinstance(finished, Finished)
    said = {"thinking": "", "answer": ""}
    for event in events:
        if isinstance(event, Chunk):
            said[event.part] += event.text
    return said["thinking"], said["answer"], finished


@contextmanager
def talking(path: Path, end: str, marks: tuple[str, ...]) -> Iterator[Talker]:
    with made(path, f"{TALK}{{{{ {end!r} }}}}", marks) as talker:
        yield talker


@contextmanager
def made(path: Path, template: str, marks: tuple[str, ...]) -> Iterator[Talker]:
    kinds = dict.fromkeys(marks, TokenType.CONTROL)
    talker = Talker(tiny_model.write(path, marks=kinds, template=template, space=False))
    try:
        yield talker
    finally:
        talker.close()


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talker]:
    path = tmp_path_factory.mktemp("talker") / "thinking.gguf"
    with talking(path, "<think>\n", ("<think>", "</think>")) as talker:
        yield talker


@pytest.fixture(autouse=True)
def calm(request: pytest.FixtureRequest) -> None:
    if "talker" in request.fixturenames:
        request.getfixturevalue("talker").answer_now.clear()


@pytest.mark.parametrize("family", FAMILIES)
def test_at_the_limit_the_answer_begins(family: str, tmp_path: Path) -> None:
    end, marks, opening, closing = FAMILIES[family]
    with talking(tmp_path / "model.gguf", end, marks) as talker:
        thinking, answer, finished = talker.reply(
            f"{opening}One. Two. Three. Four.", f"Yes.{END}", thinking_tokens=9
        )
        assert (thinking.strip(), answer) == ("One. Two.", "Yes.")
        assert finished.reason == "stop"
        statistics = finished.statistics
        assert (statistics.thinking_cut, statistics.thinking_tokens) == (True, 9)
        said = f"{opening}One. Two.{closing}Yes."
        assert talker.read.endswith(said)
        assert statistics.generated_tokens == len(talker.tokens(said + END)), "all of it counts"
        assert statistics.context_tokens == len(talker.context.tokens)
        # And once more, from what the cache holds now.
        again = talker.reply(f"{opening}One. Two. Three.", f"Yes.{END}", thinking_tokens=9)
        assert again[:2] == (thinking, answer)
        assert again[2].statistics.reused_tokens == statistics.prompt_tokens


TEXT = "Fein wägt sie 漢字 🦊 ab; x < y </b>, so denn. "


@pytest.mark.parametrize("n_tokens", range(0, len(TEXT.encode()), 3))
def test_no_word_and_no_character_is_cut(talker: Talker, n_tokens: int) -> None:
    thinking, answer, finished = talker.reply(TEXT * 2, f"Yes.{END}", thinking_tokens=n_tokens)
    thought = thinking.removesuffix("\n")
    assert (TEXT * 2).startswith(thought) and answer == "Yes."
    last, following = thought[-1:], (TEXT * 2)[len(thought)]
    assert not (last.isalnum() and following.isalnum())
    assert n_tokens <= len(thought.encode()) <= n_tokens + 8
    assert finished.statistics.thinking_tokens == len(thought.encode())


def test_what_has_no_end_is_cut_all_the_same(talker: Talker) -> None:
    thinking, answer, _ = talker.reply("x" * 200, f"Yes.{END}", thinking_tokens=50)
    assert 50 < len(thinking) < 80
    assert answer == "Yes."


def test_thinking_that_ends_by_itself_is_not_cut(talker: Talker) -> None:
    for limit in (9, 4, None):  # at 4, it ends just so
        thinking, answer, finished = talker.reply(
            f"Hm.\n</think>\n\nYes.{END}", thinking_tokens=limit
        )
        assert (thinking, answer) == ("Hm.\n", "Yes.")
        assert not finished.statistics.thinking_cut
        assert talker.read.endswith("<think>\nHm.\n</think>\n\nYes.")


def test_a_model_that_does_not_think_takes_no_notice(tmp_path: Path) -> None:
    with talking(tmp_path / "model.gguf", "assistant: ", ()) as talker:
        talker.answer_now.set()
        thinking, answer, finished = talker.reply(f"Use <think> so.{END}", thinking_tokens=0)
        assert (thinking, answer) == ("", "Use <think> so.")
        assert not finished.statistics.thinking_cut


def test_the_user_may_have_the_answer_now(talker: Talker) -> None:
    events = talker.says("One. Two. Three. Four.", f"Yes.{END}")
    came = []
    for event in events:
        came.append(event)
        if isinstance(event, Chunk) and event.text == "w":
            talker.answer_now.set()
    thinking, answer, finished = parts(came)
    assert (thinking, answer) == ("One. Two\n", "Yes.")
    assert finished.statistics.thinking_cut


def test_the_answer_may_be_wanted_before_the_thinking_begins(talker: Talker) -> None:
    talker.answer_now.set()
    thinking, answer, _ = talker.reply("One.", f"Yes.{END}")
    assert (thinking.strip(), answer) == ("", "Yes.")
    assert talker.read.endswith("<think>\n\n</think>\n\nYes.")


def test_a_model_that_stops_in_its_thinking_answers_at_the_limit(talker: Talker) -> None:
    _, answer, _ = talker.reply(f"Hm{END}", f"Yes.{END}", thinking_tokens=2)
    assert answer == "Yes."


def test_a_model_may_end_its_thinking_once_more(talker: Talker) -> None:
    _, answer, _ = talker.reply("One. Two.", f"\n</think>\n\nYes.{END}", thinking_tokens=4)
    assert answer == "Yes."


@pytest.mark.parametrize("most", [5, 6, 7, 8, 9])
def test_the_end_of_the_thinking_counts_as_reply(talker: Talker, most: int) -> None:
    _, answer, finished = talker.reply("One. Two.", "Yes.", thinking_tokens=4, max_tokens=most)
    assert finished.reason == "length"
    assert finished.statistics.generated_tokens == most
    assert answer in ("", "Y")


def test_a_grammar_begins_after_the_end(talker: Talker) -> None:
    request = Generate(
        turns=(Turn("user", "Hi"),),
        grammar='root ::= "Yes" | "No"',
        thinking_tokens=20,
        sampling=Sampling(seed=1, temperature=1),
    )
    thinking, answer, finished = parts(list(talker._session.reply(request, threading.Event())))
    assert thinking.strip()
    assert answer in ("Yes", "No")
    assert finished.reason == "stop"


def test_a_grammar_that_holds_the_thinking_rules_it(tmp_path: Path) -> None:
    with talking(tmp_path / "model.gguf", "", ("<think>", "</think>")) as talker:
        request = Generate(
            turns=(Turn("user", "Hi"),),
            grammar='root ::= "<think>" [a-z]{20} "</think>Yes"',
            thinking_tokens=5,
        )
        thinking, answer, finished = parts(list(talker._session.reply(request, threading.Event())))
        assert (len(thinking), answer) == (20, "Yes")
        assert not finished.statistics.thinking_cut


@pytest.fixture(scope="module")
def thinking_engine(
    short: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[int | None], Engine]]:
    """An engine that has real weights loaded, in so many bytes of RAM."""
    with Engine(log=tmp_path_factory.mktemp("log") / "engine.log") as engine:

        def loaded(ram: int | None) -> Engine:
            held = engine.load(Load(path=str(short), n_ctx=512, n_threads=1, ram=ram))
            assert bool(held.streamed_bytes) == bool(ram)
            return engine

        yield loaded


#: What was begun goes on, and that is thinking.
THINKING = (
    Turn("user", "The cat sat on the mat, the dog sat on the rug. " * 4),
    Turn("assistant", "<think>"),
)
SMALL = 110_000_000  # bytes: most weights are read from the disk


def test_streamed_and_drafted_the_answer_is_the_same(
    thinking_engine: Callable[[int | None], Engine],
) -> None:
    replies: dict[int | None, list[tuple[str, str]]] = {None: [], SMALL: []}
    accepted = 0
    for ram, said in replies.items():
        engine = thinking_engine(ram)
        for seed, n_tokens in ((None, 11), (5, 10)):
            request = Generate(
                turns=THINKING,
                sampling=Sampling(temperature=0.8 if seed else 0, seed=seed),
                thinking_tokens=n_tokens,
                max_tokens=32,
            )
            thinking, answer, finished = parts(list(engine.generate(request)))
            assert finished.statistics.thinking_cut
            assert answer
            said.append((thinking, answer))
            if streaming := finished.statistics.streaming:
                accepted += streaming.accepted_tokens
    assert accepted  # how many depends on what passes take just now
    assert replies[None] == replies[SMALL]


@pytest.mark.parametrize("ram", [None, SMALL])
def test_the_engine_hears_that_the_answer_is_wanted(
    thinking_engine: Callable[[int | None], Engine], ram: int | None
) -> None:
    engine = thinking_engine(ram)
    engine.answer_now()  # there is nothing
    request = Generate(turns=THINKING, sampling=Sampling(seed=1))
    events = []
    for event in engine.generate(request):
        events.append(event)
        if isinstance(event, Chunk) and event.part == "thinking":
            engine.answer_now()
        elif isinstance(event, Chunk):
            engine.cancel()
    _, answer, finished = parts(events)
    assert answer
    assert finished.statistics.thinking_cut


QWEN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}"
    "<|im_start|>assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
)
QWEN_MARKS = ("<|im_start|>", "<think>", "</think>")
#: Template, marks, what is generated with one answer and how it asks to think.
REMEMBERED = {
    "opened by the model": (QWEN, QWEN_MARKS, "<think>\nHm.\n</think>\n\n{}", None),
    "not wanted": (QWEN, QWEN_MARKS, "{}", False),
    "opened by the template": (
        f"{QWEN}<think>\n",
        QWEN_MARKS,
        "Hm.\n</think>\n\n{}",
        None,
    ),
    "closed in earlier turns": (
        "{% for m in messages %}{% if m.role == 'user' %}<|user|>\n{% else %}<|assistant|>\n"
        "<think></think>\n{% endif %}{{ m.content }}{% endfor %}<|assistant|>"
        "{% if enable_thinking is false %}{{ '\n<think></think>' }}{% endif %}",
        ("<|user|>", "<|assistant|>", "<think>", "</think>"),
        "\n{}",
        False,
    ),
    "channels": (
        "{% for m in messages %}<|start|>{{ m.role }}{% if m.role != 'user' %}<|channel|>final"
        "{% endif %}<|message|>{{ m.content }}<|end|>{% endfor %}<|start|>assistant",
        (*HARMONY, "<|return|>", "<|call|>"),  # or llama.cpp has <|end|> end a reply
        f"<|channel|>analysis<|message|>Hm.<|end|>{FINAL}{{}}",
        None,
    ),
}


@pytest.mark.parametrize("family", REMEMBERED)
def test_thinking_that_left_the_prompt_is_not_read_again(family: str, tmp_path: Path) -> None:
    template, marks, said, thinking = REMEMBERED[family]
    with made(tmp_path / "model.gguf", template, marks) as talker:
        _, answer, first = talker.reply(f"{said.format('So_it_is.')}{END}", thinking=thinking)
        assert answer == "So_it_is."
        before = talker.read
        turns = (Turn("user", "Hi"), Turn("assistant", answer), Turn("user", "Why?"))
        *_, second = talker.reply(f"{said.format('So.')}{END}", turns=turns, thinking=thinking)
        # All that is the same stays, up to the last mark: at least the beginning of the reply.
        same = before[: common_prefix(before.encode(), talker.read.encode())]
        reused = second.statistics.reused_tokens
        assert reused >= len(talker.tokens(same[: same.rfind("<")]))
        assert reused >= first.statistics.prompt_tokens - len("assistant\n<think>\n\n</think>\n\n")
        if family == "closed in earlier turns":
            assert "So_it_is." in same


@pytest.mark.parametrize("family", REMEMBERED)
@pytest.mark.parametrize("wanted_after", [0, 1, 1000])
def test_an_answer_is_read_again_while_nobody_waits(
    family: str, wanted_after: int, tmp_path: Path
) -> None:
    template, marks, said, thinking = REMEMBERED[family]
    long = "So_it_is_and_so_it_was." * 5
    looks = iter(range(10_000))
    with made(tmp_path / "model.gguf", template, marks) as talker:
        _, answer, _ = talker.reply(f"{said.format(long)}{END}", thinking=thinking)
        talker.rest(lambda: next(looks) >= wanted_after)
        turns = (Turn("user", "Hi"), Turn("assistant", answer), Turn("user", "Why?"))
        _, again, second = talker.reply(
            f"{said.format('So.')}{END}", turns=turns, thinking=thinking
        )
        assert again == "So."
        took = second.statistics
        if wanted_after == 1000:
            assert took.prompt_tokens - took.reused_tokens < len(long)
