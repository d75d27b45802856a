"""What replies are held to: JSON schemas and grammars."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
import schema_kinds

from ondevice import llama
from ondevice.errors import UsageError
from ondevice.json_schema import compile_schema
from ondevice.llama import Grammar, Model, Sampler, SchemaVocabulary
from ondevice.messages import Sampling

_MOST_TOKENS = 250


@pytest.fixture(scope="module")
def model(default_model: Path) -> Iterator[Model]:
    llama.start(io.StringIO())
    model = Model(default_model)
    yield model
    model.close()


@pytest.fixture(scope="module")
def vocabulary(model: Model) -> SchemaVocabulary:
    return SchemaVocabulary(model)


def walk(model: Model, vocabulary: SchemaVocabulary, schema: object, random: Random) -> str | None:
    """A reply of random tokens that likes to end; None: it has come to no end."""
    constraint = vocabulary.constraint(compile_schema(json.dumps(schema)))
    answer = b""
    closing = [model.tokenize(text)[0] for text in ('"', "}", "]", '"}', "1", "-", "null", ",")]
    for _ in range(_MOST_TOKENS):
        allowed = np.flatnonzero(constraint.allowed())
        assert len(allowed)
        token = int(random.choice(allowed))
        ends = [each for each in allowed[:64] if model.is_end(int(each))]
        wanted = [each for each in closing if constraint.allows(each)]
        if ends and random.random() < 0.7:
            token = int(ends[0])
        elif wanted and random.random() < 0.8:
            token = random.choice(wanted)
        if model.is_end(token):
            return answer.decode()
        constraint.accept(token)
        answer += model.piece(token)
    return None


@pytest.mark.random
def test_whatever_a_model_wants_to_say_obeys_the_schema(
    model: Model, vocabulary: SchemaVocabulary, rounds: Callable[[int], Iterator[Random]]
) -> None:
    ended = 0
    for index, random in enumerate(rounds(60)):
        schema = schema_kinds.KINDS[index % len(schema_kinds.KINDS)](random)
        try:
            answer = walk(model, vocabulary, schema, random)
        except UsageError as error:
            assert "No answer can satisfy" in str(error) or "oneOf" in str(error), schema
            continue
        if answer is not None:
            ended += 1
            assert not schema_kinds.fault(schema, answer), (schema, answer)
    assert ended > 5


@pytest.mark.random
def test_what_is_not_understood_is_refused_by_its_name(
    rounds: Callable[[int], Iterator[Random]],
) -> None:
    for random in rounds(40):
        schema = schema_kinds.not_supported(random)
        with pytest.raises(UsageError) as refused:
            compile_schema(json.dumps(schema))
        names = [*schema["properties"]["a"], "phone", "https://example.com"]
        assert any(name in str(refused.value) for name in names if name != "type"), refused.value
        assert "GBNF" not in str(refused.value)
        assert "'" not in str(refused.value)


@pytest.mark.parametrize(
    "schema",
    [
        "",
        "{",
        "[]",
        '"text"',
        "false",
        '{"type": "text"}',
        '{"minimum": 5, "maximum": 1, "type": "integer"}',
        '{"pattern": "[z-a]"}',
        '{"pattern": "(?=a)"}',
        '{"$ref": "file:///etc/passwd"}',
        '{"pattern": "' + "(" * 100_000 + ")" * 100_000 + '"}',
        '{"items":' * 100_000 + "{}" + "}" * 100_000,
        '{"items":' * 200 + "{}" + "}" * 200,
        json.dumps({"enum": [f"value {n}" for n in range(100_000)]}),
        json.dumps({"properties": {f"p{n}": {"type": "string"} for n in range(20_000)}}),
    ],
    ids=lambda text: text[:40],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: str) -> None:
    with pytest.raises(UsageError, match="schema"):
        compile_schema(schema)


@pytest.mark.parametrize("choices", ["anyOf", "enum", "type"])
def test_a_list_of_no_choices_is_named(choices: str) -> None:
    with pytest.raises(UsageError, match=rf'a list of choices in it \(.*"{choices}".*\) is empty'):
        compile_schema(json.dumps({choices: []}))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "minItems": 10**9, "items": {"type": "integer"}},
        {"type": "string", "minLength": 10**9},
        {"type": "string", "maxLength": 10**6},
        {"type": "object", "properties": {"\0\u20ac": {"type": "string"}}},
        {"anyOf": [{"const": n} for n in range(5_000)]},
        {"type": "object", "properties": {f"p{n}": {"type": "null"} for n in range(1_000)}},
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_huge_bounds_take_no_memory(
    model: Model, vocabulary: SchemaVocabulary, schema: object
) -> None:
    walk(model, vocabulary, schema, Random(1))


def test_an_object_gets_the_keys_that_it_names_and_no_others(
    model: Model, vocabulary: SchemaVocabulary
) -> None:
    def after(schema: dict[str, object]) -> set[str]:
        """What may follow the first key."""
        constraint = vocabulary.constraint(compile_schema(json.dumps(schema)))
        for token in model.tokenize('{"a":1'):
            assert constraint.allows(token)
            constraint.accept(token)
        return {mark for mark in (",", "}") if constraint.allows(model.tokenize(mark)[0])}

    schema: dict[str, object] = {"type": "object", "properties": {"a": {"const": 1}}}
    assert after(schema) == {"}"}
    assert after(schema | {"additionalProperties": True}) == {",", "}"}
    assert after(schema | {"required": ["b"]}) == {","}


def test_control_tokens_do_not_count_as_their_text(
    model: Model, vocabulary: SchemaVocabulary
) -> None:
    constraint = vocabulary.constraint(compile_schema('{"type": "string"}'))
    constraint.accept(model.tokenize('"')[0])
    control = [token for token in range(model.n_vocab) if model.is_control(token)]
    assert control
    assert not constraint.allowed()[control].any()


def test_a_schema_can_wait_for_the_end_of_the_thinking(
    model: Model, vocabulary: SchemaVocabulary
) -> None:
    constraint = vocabulary.constraint(compile_schema('{"type": "integer"}'))
    close = model.tokenize(">")[0]
    sampler = Sampler(model, Sampling(temperature=0), 1, constraint)
    sampler.constrain_after(close)
    text = model.tokenize("hmm")[0]

    def draw(wanted: int) -> int:
        logits = np.zeros(model.n_vocab, np.float32)
        logits[wanted] = 5
        return sampler.sample_from(logits)

    assert [draw(text), draw(close)] == [text, close]
    assert draw(text) != text
    sampler.close()


@pytest.mark.parametrize(
    "grammar",
    [
        # Numbers that are none, of no character, or without end.
        r"root ::= [\xZZ-a]",
        r"root ::= [\uZZZZ-a]",
        r"root ::= [\UFFFFFFFF-a]",
        r"root ::= [\U00110000-a]",
        r"root ::= [\uDFFF-\uD800]",
        r"root ::= [a-\UFFFFFFFF]",
        r'root ::= "\U00110000"',
        r'root ::= "\UFFFFFFFF"',
        'root ::= "a"{3,1}',
        'root ::= "a"{' + "9" * 5000 + "}",
        'root ::= "a"{' + "0" * 20 + "60000}",
        "root ::= " + "(" * 100_000 + '"a"' + ")" * 100_000,
        "root ::= r0\n" + "\n".join(f"r{n} ::= r{n + 1}" for n in range(9_000)) + '\nr9000 ::= "a"',
        "root ::= [z-a]",
        "root ::= [\\x7a-\\x61]",
        "root ::= " + " | ".join(f'"{n}"' for n in range(1_000_000)),
        'root ::= "a"{1000000000}',
        'root ::= (("a"{900}){900}){900}',
        'root ::= root "a"',
        "root ::= (",
        'other ::= "a"',
        "",
    ],
    ids=lambda text: text[:30],
)
def test_a_grammar_that_llama_cpp_cannot_take_is_refused(model: Model, grammar: str) -> None:
    with pytest.raises(UsageError, match="grammar") as refused:
        Grammar(model, grammar).close()
    str(refused.value).encode()  # as it goes to the app


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        ('root ::= "Q" [0-9]', "Q", "x"),
        ('# a comment (\nroot ::= "(" [^\\]"] # "', "(", "]"),
        ("root ::= [a-zA-Z_-]{1,20}", "a", "!"),
        ('root ::= x{2} \nx ::= "yes" | "no"', "yes", "x"),
    ],
)
def test_an_ordinary_grammar_is_taken(model: Model, grammar: str, good: str, bad: str) -> None:
    made = Grammar(model, grammar)
    assert made.allows(model.tokenize(good)[0])
    assert not made.allows(model.tokenize(bad)[0])
    made.close()


def test_llguidance_is_loaded_with_the_first_schema_only() -> None:
    code = "import sys, ondevice.engine._worker; print('llguidance' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
