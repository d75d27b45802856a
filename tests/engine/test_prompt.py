"""What of a conversation is in the prompt when it is longer than the context."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from ondevice import llama
from ondevice.engine._prompt import Prompt, Prompter
from ondevice.errors import ContextError
from ondevice.llama import ChatTemplate, Model
from ondevice.messages import Turn

LONG = "I see many countries. "


class FixedRoom:
    n_ctx = 512

    def want_context(self, n_tokens: int) -> None: ...


@pytest.fixture(scope="module")
def prompt(default_model: Path) -> Callable[..., Prompt]:
    llama.start(io.StringIO())
    prompter = Prompter(Model(default_model), FixedRoom())
    return lambda *turns: prompter.prompt(turns, [], room=64)


def test_what_stays_is_there_when_the_oldest_exchanges_have_left(
    prompt: Callable[..., Prompt],
) -> None:
    turns = [Turn("system", "Be kind."), Turn("user", "Notes: the cat is Zebulon.", stays=True)]
    for number in range(20):
        turns += [Turn("user", f"{number}. {LONG * 5}"), Turn("assistant", "Yes.")]
    made = prompt(*turns, Turn("user", "Go on."))
    assert made.left_out
    assert made.rendered.index("Be kind.") < made.rendered.index("Zebulon")
    assert made.rendered.index("Zebulon") < made.rendered.index("19. I see")
    assert "user\n0. I see" not in made.rendered


@pytest.mark.parametrize(
    "turns",
    [
        [Turn("system", "The cat is Zebulon.")],
        [Turn("user", "The cat is Zebulon.", stays=True)],
        [Turn("system", "Be kind."), Turn("system", "The cat is Zebulon.")],
        [Turn("system", "Be kind."), Turn("user", "The cat is Zebulon.", stays=True)],
        [Turn("user", "Hello.", stays=True), Turn("system", "The cat is Zebulon.")],
    ],
)
def test_the_last_turn_is_answered_whoever_said_it_and_though_it_stays(
    prompt: Callable[..., Prompt], turns: list[Turn]
) -> None:
    assert "Zebulon" in prompt(*turns).rendered
    long = Turn(turns[-1].role, LONG * 500, stays=turns[-1].stays)
    with pytest.raises(ContextError):
        prompt(*turns[:-1], long)


def test_what_left_comes_back_when_an_early_message_goes_on_otherwise(
    prompt: Callable[..., Prompt],
) -> None:
    turns = [Turn("user", "The cat is Zebulon."), Turn("assistant", "Yes.")]
    for number in range(20):
        turns += [Turn("user", f"{number}. {LONG * 5}"), Turn("assistant", "Yes.")]
    last = Turn("user", "Go on.")
    assert "Zebulon" not in prompt(*turns, last).rendered
    assert "Zebulon" not in prompt(*turns[:-2], last).rendered  # nearly all is read already
    for _ in range(2):
        assert "Zebulon" in prompt(*turns[:6], last).rendered
    made = prompt(*turns[:26], last)
    assert "Zebulon" not in made.rendered
    assert made.left_out


def test_what_stays_goes_where_there_is_no_room_for_the_last_message(
    prompt: Callable[..., Prompt],
) -> None:
    notes = Turn("user", "Notes: the cat is Zebulon. " * 20, stays=True)
    made = prompt(notes, Turn("user", LONG * 80))
    assert "Zebulon" not in made.rendered
    with pytest.raises(ContextError):
        prompt(notes, Turn("user", LONG * 200))


@pytest.mark.parametrize(
    "template",
    [
        # No system role, and the two sides in turn, or it fails.
        "{% for m in messages %}{% if m.role == 'system' or (m.role == 'user') != (loop.index0 % 2 "
        "== 0) %}{{ raise_exception('no') }}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}",
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}",
    ],
)
def test_templates_of_all_kinds_take_what_stays(
    default_model: Path, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama.start(io.StringIO())
    model = Model(default_model)
    monkeypatch.setattr(Model, "chat_template", template)
    notes = Turn("user", "Notes: Zebulon.", stays=True)
    turns = [Turn("system", "Be kind."), notes, Turn("user", "Who is it?")]
    rendered = ChatTemplate(model).render(turns)
    places = [rendered.index(text) for text in ("Be kind.", "Zebulon", "Who is it?")]
    assert places == sorted(places)
