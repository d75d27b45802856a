"""How the bytes of tokens become chunks: thinking, stop strings, UTF-8."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.engine._reply_text import ReplyText, answer_of


def split(pieces: list[bytes], *, prompt: str = "", stop: tuple[str, ...] = ()) -> tuple[str, str]:
    """The thinking and the answer that ``pieces`` give."""
    text = ReplyText(prompt, stop)
    chunks = [chunk for piece in pieces for chunk in text.feed(piece)] + text.finish()
    thinking, answer = (
        "".join(c.text for c in chunks if c.part == part) for part in ("thinking", "answer")
    )
    return thinking, answer


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


FINAL = "<|start|>assistant<|channel|>final<|message|>"
FAMILIES = [
    ("<seed:think>x</seed:think>y", ""),
    ("<mm:think>x</mm:think>y", ""),
    ("<|START_THINKING|>x<|END_THINKING|><|START_RESPONSE|>y<|END_RESPONSE|>", ""),
    ("x<|END_THINKING|>y", "<|CHATBOT_TOKEN|><|START_THINKING|>"),
    ("<|channel>thought\nx<channel|>y", ""),
    ("<|channel|>analysis<|message|>x<|end|>" + FINAL + "y", ""),
    ("<|channel|>analysis<|message|>x<|end|>" + FINAL + "y", "<|end|><|start|>assistant"),
    ("<|think|>x<|end|><|begin|>assistant<|content|>y<|end|>", "<|begin|>assistant"),
    (" to=self<|message|>x<|eom|><|start|>assistant to=user<|message|>y", "<|start|>assistant"),
    ("x\n[BEGIN FINAL RESPONSE]\ny[END FINAL RESPONSE]", "\nHere are my reasoning steps:\n"),
    (
        "x<|close|>think<|sep|><|open|>response<|sep|>y<|close|>response<|sep|>",
        "<|open|>think<|sep|>",
    ),
    ("<think>x</think>\n<answer>\ny</answer>", ""),
]


@pytest.mark.parametrize(("reply", "prompt"), FAMILIES)
@given(places=st.lists(st.integers(0, 200)))
def test_each_family_has_its_marks(reply: str, prompt: str, places: list[int]) -> None:
    thinking, answer = split(cut(reply, places), prompt=prompt)
    assert (thinking.strip(), answer.strip()) == ("x", "y")


def test_an_answer_goes_on_where_a_prompt_has_begun_it() -> None:
    prompt = "<|start|>user<|message|>Hi<|end|>" + FINAL + "It"
    assert split([b" is<|channel|>"], prompt=prompt) == ("", " is")


def test_commentary_is_no_answer() -> None:
    reply = "<|channel|>commentary<|message|>I look.<|end|>" + FINAL + "So."
    assert split([reply.encode()]) == ("I look.", "So.")


@pytest.mark.parametrize("text", ["<answer>B</answer>", "a <|channel|> b", "[x] done", "to=self"])
def test_what_only_looks_like_a_mark_is_text(text: str) -> None:
    assert split([text.encode()]) == ("", text)


def test_a_character_that_was_cut_is_left_out() -> None:
    assert split(["漢字".encode()[:5]]) == ("", "漢")


@given(st.lists(st.integers(0, 200)))
def test_a_template_may_end_the_thinking(places: list[int]) -> None:
    pieces = cut("\n\nYes.", places)
    assert split(pieces, prompt="<|assistant|>\n<think></think>") == ("", "Yes.")


@given(st.lists(st.integers(0, 200)))
def test_thinking_that_is_ended_twice_has_one_end(places: list[int]) -> None:
    pieces = cut("<think>Hm.\n</think>\n\n</think>\n\nYes </think>.", places)
    assert split(pieces) == ("Hm.\n", "Yes </think>.")


def test_what_was_kept_with_marks_goes_back_without() -> None:
    kept = "<|channel|>analysis<|message|>Hm.<|end|>" + FINAL + "Yes"
    assert answer_of(kept) == "Yes"
    assert answer_of("<think>Hm.</think>\n\nYes") == "Yes"
    assert answer_of("Use <think> so.") == "Use <think> so."
    assert answer_of("<think>Hm.") == "<think>Hm."
