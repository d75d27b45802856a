"""How the bytes of tokens become chunks: thinking, stop strings, UTF-8."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ondevice.engine._reply_text import ReplyText


def split(pieces: list[bytes], *, prompt: str = "", stop: tuple[str, ...] = ()) -> tuple[str, str]:
    """The thinking and the answer that ``pieces`` give."""
    text = ReplyText(prompt, stop)
    chunks = [chunk for piece in pieces for chunk in text.feed(piece)] + text.finish()
    return tuple(  # type: ignore[return-value]
        "".join(c.text for c in chunks if c.part == part) for part in ("thinking", "answer")
    )


def cut(text: str, places: list[int]) -> list[bytes]:
    data = text.encode()
    marks = [0, *sorted(p % (len(data) + 1) for p in places), len(data)]
    return [data[a:b] for a, b in pairwise(marks)]


@given(st.lists(st.integers(0, 200)))
def test_thinking_is_apart_however_the_tokens_fall(places: list[int]) -> None:
    pieces = cut("<think>\nFirst wëigh <b>.\n</think>\n\nThe answer: 🦊", places)
    assert split(pieces) == ("\nFirst wëigh <b>.\n", "The answer: 🦊")


@given(st.lists(st.integers(0, 200)))
def test_a_template_may_open_the_thinking(places: list[int]) -> None:
    pieces = cut("Hm.</think>Yes.", places)
    assert split(pieces, prompt="<|im_start|>assistant\n<think>\n") == ("Hm.", "Yes.")


def test_a_tag_in_the_middle_of_an_answer_is_text() -> None:
    assert split([b"Use <think> so."]) == ("", "Use <think> so.")


def test_an_answer_that_begins_like_a_tag_is_not_lost() -> None:
    assert split([b"<thi"]) == ("", "<thi")
    assert split([b"<", b"b>"]) == ("", "<b>")


def test_thinking_that_is_cut_short_stays_thinking() -> None:
    assert split([b"<think>Hm. </thi"]) == ("Hm. </thi", "")


@given(st.lists(st.integers(0, 200)))
def test_the_first_stop_string_ends_the_answer(places: list[int]) -> None:
    pieces = cut("one two three four", places)
    assert split(pieces, stop=("three", "two t", "nothing")) == ("", "one ")


def test_stop_strings_do_not_end_the_thinking() -> None:
    assert split([b"<think>a stop b</think>c stop d"], stop=("stop",)) == ("a stop b", "c ")


@given(st.text(), st.lists(st.integers(0, 400)))
def test_plain_text_arrives_whole(text: str, places: list[int]) -> None:
    text = "x" + text.replace("\ud800", "")
    assert split(cut(text, places), stop=("\x00never\x00",)) == ("", text)


def test_broken_utf8_is_replaced() -> None:
    assert split([b"caf\xc3", b"\xa9 \xff!"]) == ("", "caf\xe9 \ufffd!")
