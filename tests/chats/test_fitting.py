"""What fits the context: counted before it is sent, cut and grown with reason."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence

import pytest
import tiny_model

from ondevice import llama
from ondevice.chats import fitting
from ondevice.engine import Engine
from ondevice.engine._prompt import Prompter
from ondevice.errors import ContextError
from ondevice.llama import Context, Model
from ondevice.memory import beginnings, passages
from ondevice.messages import Finished, Generate, Load, Measure, Role, Turn
from ondevice.testing import FakeEngine

INVOICE = "The invoice of Mr Bergstrom came to 4711 crowns."
LINES = [f"In line {n} the ship sails on over the sea, which is wide." for n in range(2000)]
LINES[1500] = INVOICE
BOOK = "\n".join(LINES)


def words(pieces: Sequence[str]) -> list[int]:
    return [len(piece.split()) for piece in pieces]


# ------------------------------------------------------------------ what is taken out of a text


def test_what_matters_to_the_question_is_taken_in_its_order() -> None:
    other = "A list of things to do.\n" * 200
    book, notes = passages([BOOK, other], "What did the invoice in @book.txt say?", 900, words)
    assert INVOICE in book
    assert book.startswith(LINES[0])
    assert notes.startswith("A list of things to do.")
    assert "\n…\n" in book
    assert sum(words([book, notes])) <= 900
    places = [BOOK.index(part.strip("\n")) for part in book.split("…") if part.strip()]
    assert places == sorted(places)
    assert "".join(passages(["One.\n\nTwo."], "two", 600, words)) == "One.\n\nTwo."


def test_without_a_word_to_search_for_all_of_a_text_is_looked_at() -> None:
    (book,) = passages([BOOK], "Summarize @book.txt", 600, words)
    numbers = [int(line.split()[2]) for line in book.splitlines() if line.startswith("In line")]
    assert 300 < sum(words([book])) <= 600
    assert max(numbers) > 1000


@pytest.mark.parametrize("text", [BOOK, "x" * 90_000, "word " * 20_000, "日本語" * 9000])
def test_beginnings_have_what_there_is_room_for_and_short_texts_stay_whole(text: str) -> None:
    def characters(pieces: Sequence[str]) -> list[int]:
        return [len(piece) for piece in pieces]

    long, short = beginnings([text, "Short."], 3000, characters)
    assert short == "Short."
    assert text.startswith(long.removesuffix("\n…"))
    assert 1900 < len(long) <= 3000


# ------------------------------------------------------------------ what the prompt is made of


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """Its tokens are bytes, and it was trained on 256 of them."""
    llama.start(io.StringIO())
    model = Model(tiny_model.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf"))
    yield model
    model.close()


class Growing:
    """A context that becomes as large as it is asked to be, up to a limit."""

    def __init__(self, n_ctx: int, most: int = 256) -> None:
        self.n_ctx, self._most = n_ctx, most

    def want_context(self, n_tokens: int) -> None:
        self.n_ctx = max(self.n_ctx, min(n_tokens, self._most))


def talk(count: int) -> list[Turn]:
    roles: tuple[Role, ...] = ("user", "assistant")
    return [Turn(roles[n % 2], f"Message {n:3}") for n in range(count)]


def test_a_long_chat_that_is_taken_up_again_is_cut_and_not_grown(tiny: Model) -> None:
    room = Growing(128)
    prompter = Prompter(tiny, room)
    chat = talk(41)
    first = prompter.prompt(chat, [], room=32)
    assert room.n_ctx == 128
    assert len(first.tokens) <= 96
    assert first.left_out > 0
    chat += [Turn("assistant", "Yes."), Turn("user", "And?")]
    then = prompter.prompt(chat, first.tokens, room=32)
    assert not then.left_out
    assert then.tokens[: len(first.tokens)] == first.tokens
    # Another chat in between changes nothing.
    prompter.prompt([Turn("user", "Hi"), *talk(30)[1:], chat[0]], then.tokens, room=32)
    again = prompter.prompt([*chat, Turn("assistant", "No."), Turn("user", "So?")], [], room=32)
    assert again.tokens[: len(first.tokens)] == first.tokens
    assert not again.left_out


def test_a_chat_that_the_cache_holds_grows(tiny: Model) -> None:
    room = Growing(128)
    prompter = Prompter(tiny, room)
    chat = talk(7)
    first = prompter.prompt(chat, [], room=32)
    chat += [Turn("assistant", "Yes, it is so."), Turn("user", "And then?")]
    then = prompter.prompt(chat, first.tokens, room=32)
    assert not then.left_out
    assert room.n_ctx == len(then.tokens) + 32 > 128


@pytest.mark.parametrize(("length", "grown"), [(60, False), (150, True), (400, False)])
def test_the_context_grows_for_a_message_that_needs_it_and_can_have_it(
    tiny: Model, length: int, grown: bool
) -> None:
    room = Growing(128)
    prompter = Prompter(tiny, room)
    chat = [*talk(4), Turn("user", "x" * length)]
    if length > 256:
        with pytest.raises(ContextError) as caught:
            prompter.prompt(chat, [], room=32)
        assert caught.value.tokens > 256
    else:
        assert "x" * length in prompter.prompt(chat, [], room=32).rendered
    assert (room.n_ctx > 128) == grown


def test_a_message_that_met_an_error_leaves_when_it_does_not_fit(tiny: Model) -> None:
    prompter = Prompter(tiny, Growing(128, most=128))
    prompt = prompter.prompt([Turn("user", "x" * 250), Turn("user", "Hello?")], [], room=32)
    assert prompt.rendered == "Hello?"


def test_progress_is_told_within_a_batch(tiny: Model) -> None:
    context = Context(tiny, n_ctx=256, batch_tokens=128)
    for _ in range(2):
        told: list[float] = []
        assert context.decode([5] * 100, threading.Event(), on_progress=told.append)
        context.truncate(0)
        assert len(told) > 10
        assert told == sorted(told)
    context.close()
    assert 0 < told[0] < 0.1
    assert told[-1] == 1.0


# ------------------------------------------------------------------ what the engine counts


def asked(texts: Sequence[str]) -> list[Turn]:
    return [Turn("system", "Be brief."), Turn("user", f"{texts[0]}\n\nHow much was the invoice?")]


def test_what_is_measured_is_what_is_read(engine: Engine) -> None:
    turns = tuple(asked(["The sea is wide. " * 20]))
    measured = engine.measure(Measure(turns=turns, texts=("Hello", "Hello, world")))
    *_, done = engine.generate(Generate(turns=turns, max_tokens=1))
    assert isinstance(done, Finished)
    assert measured.tokens == done.statistics.prompt_tokens
    assert measured.n_ctx == done.statistics.n_ctx == 1024
    assert 0 < measured.texts[0] < measured.texts[1] < 8


@pytest.mark.parametrize("how", ["relevant", "beginning"])
def test_a_text_of_any_length_is_made_to_fit(engine: Engine, how: fitting.How) -> None:
    texts = [BOOK * 50]  # 6 MB
    size = fitting.measure(engine, asked, texts)
    assert not size.fits
    shorter = fitting.shorten(engine, asked, texts, "How much was the invoice?", how, beside=50)
    size = fitting.measure(engine, asked, shorter)
    assert size.left >= 50
    assert size.tokens > 500
    assert (INVOICE in shorter[0]) == (how == "relevant")


def test_a_server_takes_what_it_takes() -> None:
    engine = FakeEngine()
    engine.load(Load(path="fake.gguf"))
    assert not fitting.measure(engine, asked, ["word " * 9000]).fits
    assert fitting.Size(tokens=0, n_ctx=0).fits
