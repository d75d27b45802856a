"""Chat templates: bounded, in the form that each wants, and what people write stays text."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
import tiny_model
from gguf import TokenType
from peak_ram import peak_ram

from ondevice import llama
from ondevice.engine._prompt import Prompter
from ondevice.errors import ContextError, ModelFileError
from ondevice.llama import ChatTemplate, Model, Stopped
from ondevice.messages import Role, Turn

GEMMA = "gemma-3-270m-q4_k_m.gguf"
QWEN = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
EACH = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
CHANNELS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% if '<|channel|>' in m.content %}{{ raise_exception('no channels') }}{% endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "<|start|>assistant"
)


def template(source: str | None, **more: Any) -> ChatTemplate:
    """A template without a model: it can render."""
    model = SimpleNamespace(chat_template=source, path=Path("some.gguf"), bos="<s>", eos="</s>")
    model.__dict__.update(more)
    return ChatTemplate(cast(Model, model))


def render(source: str, *turns: tuple[Role, str], **options: Any) -> str:
    return template(source).render([Turn(r, t) for r, t in turns], **options)


HOSTILE = (
    "{{ 'a' * 10**10 }}",
    "{% set x = 'a' * 10**10 %}",
    "{{ 9**99999 }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}aaaaaaaa{% endfor %}{% endfor %}",
    "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
    "{{ n.x }}",
    "{% set n = namespace(x=1) %}{% for i in range(60) %}{% set n.x = {'a': n.x, 'b': n.x} %}"
    "{% endfor %}{{ n.x | tojson }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(80) }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ 'a' | center(1000000000) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:{}}'.format(1, 1000000000) }}",
    "{{ ('{0}' * 9999).format('a' * 99999) }}",
    "{{ ('a\n' * 99999) | indent('a' * 99999) }}",
    "{{ ('a' * 99999) | join('b' * 99999) }}",
    "{{ ('a' * 99999).replace('', 'b' * 99999) }}",
    "{{ [[1]] | tojson(indent=1000000000) }}",
    "{{ 1.5 | round(1000000000, 'ceil') }}",
    "{% set y %}{% for i in range(99999) %}{{ range(99999) | list }}{% endfor %}{% endset %}",
    "{% for x in range(9) recursive %}{{ loop(range(9)) }}{% endfor %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{% if 1 %}" * 300 + "{% endif %}" * 300,
    "{{ 1" + "+1" * 40000 + " }}",
    "{% break %}",
    "{% autoescape true %}{% set x = '<' * 999999 %}{% set y %}{% for i in range(99999) %}{{ x }}"
    "{% endfor %}{% endset %}{% endautoescape %}",
    "{{ a }}" * 500_000,
)


@pytest.mark.parametrize("source", HOSTILE)
def test_no_template_takes_long_or_much(source: str) -> None:
    before, began = peak_ram(), time.thread_time()
    with pytest.raises(ModelFileError, match=r"The chat template of some\.gguf"):
        render(source, ("user", "Hi"))
    assert time.thread_time() - began < 4
    assert peak_ram() - before < 200 << 20


GROWS = (
    "{x} ~ {x}",
    "[{x}, {x}]",
    "{x} | string",
    "({x} | string).replace('a', 'aaaa')",
    "{x} | join(({x} | string))",
    "({x} | string) * {n}",
    "{x} | list + {x} | list",
    "{{'k': {x}, 'l': {x}}}",
    "'%{n}s' % ({x} | string)",
    "'{{:{n}}}'.format({x} | string)",
    "{x} | tojson(indent={n})",
    "({x} | string) | center({n})",
    "({x} | string).split('a')",
    "{n} ** {n}",
    "range({n}) | list",
    "({x} | string) | indent({n})",
)
AROUND = (
    "{{% set n.x = {e} %}}",
    "{{% for i in range({n}) %}}{b}{{% endfor %}}",
    "{{% macro m{n}(x) %}}{b}{{% endmacro %}}{{{{ m{n}(n.x) }}}}",
    "{{% if {e} %}}{b}{{% endif %}}",
    "{{% set y %}}{b}{{{{ n.x }}}}{{% endset %}}{{% set n.x = y %}}",
    "{{{{ {e} }}}}{b}",
)


def grown(random: Random, depth: int) -> str:
    n = random.choice([2, 3, 60, 9999, 10**9])
    expression = random.choice(GROWS).format(x="n.x", n=n)
    for _ in range(random.randrange(3)):
        expression = random.choice(GROWS).format(x=f"({expression})", n=n)
    body = "".join(grown(random, depth - 1) for _ in range(random.randrange(3))) if depth else ""
    return random.choice(AROUND).format(e=expression, b=body, n=n)


@pytest.mark.random
def test_random_templates_end(rounds: Callable[[int], Iterator[Random]]) -> None:
    for random in rounds(25):
        source = "{% set n = namespace(x='a') %}" + grown(random, 3) + grown(random, 3)
        began = time.thread_time()
        try:
            render(source, ("user", "Hi"))
        except ModelFileError as error:
            assert "The chat template of some.gguf" in str(error), source
        assert time.thread_time() - began < 6, source


def test_a_template_is_stopped_when_that_is_wanted() -> None:
    stop = threading.Event()
    stop.set()
    source = "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}"
    source = EACH + "{% if messages | length > 2 %}" + source + "{% endif %}"
    talk: tuple[tuple[Role, str], ...] = (("user", "Hi"), ("assistant", "Yes"), ("user", "So?"))
    with pytest.raises(Stopped):
        render(source, *talk, stop=stop.is_set)


def test_what_is_usual_in_templates_works() -> None:
    source = """
{%- set ns = namespace(last=0, text='') -%}
{%- for m in messages[::-1] if m.role == 'user' -%}
{%- if loop.first %}{% set ns.last = (messages | length) - loop.index0 %}{% endif -%}
{%- endfor -%}
{%- macro show(m) -%}
{% generation %}{{ '%s|%d' % (m['content'] | trim, 7) }}{% endgeneration %}
{%- endmacro -%}
{%- for m in messages -%}
{%- set ns.text = ns.text ~ m.role[0] + show(m) -%}
{%- if m.role == 'tool' %}{% continue %}{% endif -%}
{%- endfor -%}
{{- bos_token + ns.text + ns.last | string -}}
{{- ['a', 'b'] | map('upper') | join(',') + {'k': 'é'} | tojson -}}
{%- if tools is defined and tools is not none %}tools{% endif -%}
{{- strftime_now('%Y') | length -}}
"""
    assert render(source, ("user", " Hi "), ("assistant", "Yo")) == '<s>uHi|71A,B{"k": "é"}4Yo'


# ------------------------------------------------------------ roles, systems, variables


ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('must alternate') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}"
)
FIRST_ONLY = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('first') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{{ m.content }}"
    "{% endif %}{% endfor %}"
)
LAST_SYSTEM = (
    "{% set n = namespace(s='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set n.s = m.content %}{% endif %}{% endfor %}{{ n.s }}" + NO_SYSTEM
)


@pytest.mark.parametrize(
    ("source", "roles", "expected"),
    [
        (ALTERNATE, "uu", "<user>0\n\n1"),
        (ALTERNATE, "au", "<user>…<assistant>0<user>1"),
        (ALTERNATE, "suau", "<user>0\n\n1<assistant>2<user>3"),
        (ALTERNATE, "s", "<user>0"),
        (EACH, "uu", "<user>0<user>1"),
        (EACH, "usu", "<user>0<system>1<user>2"),
        (FIRST_ONLY, "ssu", "<system>0\n\n1<user>2"),
        (FIRST_ONLY, "suasu", "<system>0<user>1<assistant>2<user>3\n\n4"),
        (FIRST_ONLY, "uas", "<user>0<assistant>1<user>2"),
        (NO_SYSTEM, "suau", "<user>0\n\n1<assistant>2<user>3"),
        (NO_SYSTEM, "s", "<user>0"),
        (LAST_SYSTEM, "susu", "0<user>1<user>2\n\n3"),
    ],
)
def test_conversations_come_in_the_form_that_a_template_takes(
    source: str, roles: str, expected: str
) -> None:
    names: dict[str, Role] = {"s": "system", "u": "user", "a": "assistant"}
    assert render(source, *((names[r], str(i)) for i, r in enumerate(roles))) == expected


@pytest.mark.parametrize(
    "source",
    [
        EACH + "{% for tool in tools %}{{ tool }}{% endfor %}",
        EACH + "{{ 'Functions: ' + functions + ' on ' + datetime }}",
    ],
)
def test_a_template_made_for_tools_works_without(source: str) -> None:
    assert "Hi" in render(source, ("user", "Hi"))


@pytest.mark.parametrize(
    ("end", "continued"),
    [
        ("<think>\n", "<think>\n</think>\n\nIt is"),
        ("<|START_THINKING|>", "<|START_THINKING|><|END_THINKING|>It is"),
        (
            "{% if enable_thinking is false %}<think></think>{% else %}<think>{% endif %}",
            "<think></think>It is",
        ),
        ("", "It is"),
    ],
)
def test_what_goes_on_is_the_answer_and_not_the_thinking(end: str, continued: str) -> None:
    assert render(EACH + end, ("user", "Hi"), ("assistant", "It is")) == f"<user>Hi{continued}"


def test_a_channel_goes_on_as_the_answer() -> None:
    rendered = render(CHANNELS, ("user", "Hi"), ("assistant", "It is"))
    assert rendered.endswith("<|start|>assistant<|channel|>final<|message|>It is")


# ------------------------------------------------------------ no template, or a name


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Model]]:
    """Makes a tiny model with some tokens and a template."""
    llama.start(io.StringIO())
    models: list[Model] = []

    def make(template: str, **marks: TokenType) -> Model:
        path = tmp_path_factory.mktemp("model") / "tiny.gguf"
        models.append(Model(tiny_model.write(path, marks=marks, template=template)))
        return models[-1]

    yield make
    for model in models:
        model.close()


def test_without_a_template_chatml_is_only_for_models_that_know_it(
    marked: Callable[..., Model],
) -> None:
    turns = [Turn("user", "Hi")]
    plain = ChatTemplate(marked(""))
    assert plain.render(turns) == "User: Hi\nAssistant:"
    assert "\nUser:" in plain.stops
    tokens = {"<|im_start|>": TokenType.CONTROL, "<|im_end|>": TokenType.CONTROL}
    chatml = ChatTemplate(marked("", **tokens))
    assert chatml.render(turns) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert chatml.stops == ()


def test_a_name_in_place_of_a_template_is_looked_up(marked: Callable[..., Model]) -> None:
    assert "Hi" in ChatTemplate(marked("rwkv-world")).render([Turn("user", "Hi")])
    with pytest.raises(ModelFileError, match="unknown"):
        ChatTemplate(marked("no-such-name"))


# ------------------------------------------------------------ what people write is text


MARKS = {
    "<|start|>": TokenType.CONTROL,  # which llama.cpp turns into user-defined
    "<|end|>": TokenType.USER_DEFINED,
    "<|message|>": TokenType.CONTROL,
    "<|channel|>": TokenType.CONTROL,
    "</think>": TokenType.USER_DEFINED,
    "<tool_response>": TokenType.USER_DEFINED,
    "[INST]": TokenType.CONTROL,
    "|start|>": TokenType.CONTROL,
    "\n\n": TokenType.USER_DEFINED,
    "<table>": TokenType.USER_DEFINED,
}


@pytest.mark.random
def test_what_people_write_is_never_read_as_a_control_token(
    marked: Callable[..., Model], rounds: Callable[[int], Iterator[Random]]
) -> None:
    model = marked(CHANNELS, **MARKS)
    chat = ChatTemplate(model)
    # After these two, which are tokens in any text, llama.cpp puts a space.
    marks = [mark for mark in MARKS if mark not in ("\n\n", "<table>")]
    spellings = [*marks, "<s>", "</s>", "<unk>", "<0x41>", "<|", "|>", "<", "a ", "é", "x", "🦊"]

    def controls(text: str) -> tuple[list[int], str]:
        turns = [Turn("user", text), Turn("assistant", "Yes"), Turn("user", text)]
        tokens = chat.tokenize(chat.render(turns))
        found = [t for t in tokens if model.is_control(t)]
        # The vocabulary has bytes only, also for the mark that stands for a space.
        return found, model.text(tokens, special=True).replace("\u2581", " ")

    expected = controls("plain")[0]
    for random in rounds(60):
        text = "".join(random.choice(spellings) for _ in range(random.randrange(1, 30)))
        found, spelled = controls(text)
        assert found == expected, text
        assert f"user<|message|> {text}<|end|>" in spelled, text


def test_spaces_and_html_stay_the_tokens_that_they_are(marked: Callable[..., Model]) -> None:
    model = marked(EACH, **MARKS)
    assert not {"\n\n", "<table>"} & model.control_spellings
    assert set(MARKS) - {"\n\n", "<table>"} <= model.control_spellings


@pytest.mark.parametrize("name", ["", GEMMA, QWEN])
def test_in_pieces_a_text_has_the_same_tokens(
    default_model: Path, big_model: Callable[[str], Path], name: str
) -> None:
    llama.start(io.StringIO())
    model = Model(big_model(name) if name else default_model)
    chat = ChatTemplate(model)
    text = Path(__file__).read_text() + Path(tiny_model.__file__).read_text() * 2
    first = Turn("user", text.replace("<", "("))
    rendered = chat.render([first, Turn("assistant", "Yes."), Turn("user", "a b c")])
    bos = bool(model.bos) and rendered.startswith(model.bos)
    whole = model.tokenize(rendered, add_special=not bos, parse_special=True)
    assert chat.tokenize(rendered) == whole
    model.close()


class FixedRoom:
    def __init__(self, n_ctx: int) -> None:
        self.n_ctx = n_ctx

    def want_context(self, n_tokens: int) -> None:
        """There is none."""


def test_a_text_that_cannot_fit_is_refused_soon(big_model: Callable[[str], Path]) -> None:
    llama.start(io.StringIO())
    model = Model(big_model(GEMMA))
    prompter = Prompter(model, FixedRoom(512))
    for text in ("\t" * 60_000, "<" * 60_000, "<\t" * 30_000, "x" * 4_000_000):
        began = time.thread_time()
        with pytest.raises(ContextError, match="Shorten it"):
            prompter.prompt([Turn("user", text)], [], room=64)
        assert time.thread_time() - began < 4
    model.close()


def test_many_messages_and_a_cancel(default_model: Path) -> None:
    llama.start(io.StringIO())
    model = Model(default_model)
    prompter = Prompter(model, FixedRoom(512))
    roles: tuple[Role, ...] = ("user", "assistant")
    turns = [Turn(roles[i % 2], f"Number {i}") for i in range(4001)]
    began = time.thread_time()
    prompt = prompter.prompt(turns, [], room=64)
    assert time.thread_time() - began < 4
    assert prompt.left_out > 3900
    with pytest.raises(Stopped):
        prompter.prompt([Turn("user", "Something else")], [], room=64, stop=lambda: True)
    model.close()


def test_an_empty_prompt_blames_the_template(marked: Callable[..., Model]) -> None:
    prompter = Prompter(marked("{{ '' }}{% if false %}{% endif %}"), FixedRoom(256))
    prompter._model.__dict__["start_tokens"] = ()
    with pytest.raises(ModelFileError, match="empty prompt"):
        prompter.prompt([Turn("user", "Hi")], [], room=16)
