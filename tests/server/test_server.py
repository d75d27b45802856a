"""The engine behind OpenAI's protocol, asked with OpenAI's own client."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from server_process import SERVER_KEY

from ondevice.cli import run

ASK: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Name the capital of France."},
]


@pytest.fixture
def client(server_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=server_url, api_key=SERVER_KEY, max_retries=0, timeout=60
    ) as client:
        yield client


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["smollm2-135m"]


def test_a_reply_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="smollm2-135m", messages=ASK)
    text = whole.choices[0].message.content
    assert text
    assert "Paris" in text
    assert whole.choices[0].finish_reason == "stop"
    chunks = list(
        client.chat.completions.create(
            model="smollm2-135m",
            messages=ASK,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices).strip() == text
    assert all("usage" in chunk.model_fields_set for chunk in chunks)
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    usage = chunks[-1].usage
    assert usage
    assert whole.usage
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert usage.prompt_tokens_details
    assert usage.prompt_tokens_details.cached_tokens


def test_a_body_may_begin_with_a_byte_order_mark(server_url: str) -> None:
    body = json.dumps({"model": "smollm2-135m", "messages": ASK, "max_tokens": 1}).encode()
    key = {"Authorization": f"Bearer {SERVER_KEY}"}
    reply = httpx2.post(
        f"{server_url}/chat/completions", content=b"\xef\xbb\xbf" + body, headers=key, timeout=60
    )
    assert reply.status_code == 200, reply.text


def test_options_are_obeyed(client: openai.OpenAI) -> None:
    def ask(**options: Any) -> str:
        options = {"temperature": 1, "max_tokens": 12, **options}
        done = client.chat.completions.create(model="smollm2-135m", messages=ASK, **options)
        return str(done.choices[0].message.content)

    assert ask(seed=5) == ask(seed=5) != ask(seed=6)
    schema = {"type": "object", "properties": {"n": {"const": 7}}, "required": ["n"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    assert json.loads(ask(response_format=wanted, max_tokens=40)) == {"n": 7}
    assert "Paris" not in ask(temperature=0, max_tokens=60, stop=["Paris"])


def test_embeddings_are_near_for_near_meanings(client: openai.OpenAI) -> None:
    texts = ["The cat sat on the mat.", "A kitten is lying on a rug.", "Rates rose in March."]
    done = client.embeddings.create(model="smollm2-135m", input=texts)
    cat, kitten, rates = (item.embedding for item in done.data)

    def product(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert product(cat, cat) == pytest.approx(1, abs=1e-4)
    assert product(cat, kitten) > product(cat, rates)
    floats = client.embeddings.create(model="smollm2-135m", input=texts[0], encoding_format="float")
    assert floats.data[0].embedding == pytest.approx(cat, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"model": "none"}, openai.NotFoundError),
        ({"model": "/etc/passwd"}, openai.NotFoundError),
        ({"messages": []}, openai.BadRequestError),
        ({"messages": [{"role": "user", "content": "long " * 600}]}, openai.BadRequestError),
        ({"n": 3}, openai.BadRequestError),
        ({"temperature": "hot"}, openai.BadRequestError),
        ({"stream": True, "max_tokens": -2}, openai.BadRequestError),
    ],
)
def test_what_cannot_be_done_is_refused(
    client: openai.OpenAI, options: dict[str, Any], error: type[Exception]
) -> None:
    request: dict[str, Any] = {"model": "smollm2-135m", "messages": ASK, **options}
    with pytest.raises(error):
        client.chat.completions.create(**request)


def test_strangers_are_kept_out(server_url: str) -> None:
    good = {"Authorization": f"Bearer {SERVER_KEY}"}
    assert httpx2.get(f"{server_url}/models").status_code == 401
    assert httpx2.get(f"{server_url}/models", headers=good).status_code == 200
    # A name of somebody else's that points here.
    other = httpx2.get(f"{server_url}/models", headers={**good, "Host": "evil.example"})
    assert other.status_code == 400
    huge = httpx2.post(f"{server_url}/embeddings", headers=good, content=b" " * 9_000_000)
    assert huge.status_code == 413


def test_a_client_that_leaves_frees_the_engine(client: openai.OpenAI) -> None:
    story: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "Count from 1 to 10000, one number to a line."}
    ]
    with client.chat.completions.create(
        model="smollm2-135m", messages=story, stream=True
    ) as stream:
        next(iter(stream))
    assert client.chat.completions.create(model="smollm2-135m", messages=ASK, max_tokens=1)


def test_requests_wait_for_each_other(client: openai.OpenAI) -> None:
    replies: list[str | None] = []

    def ask() -> None:
        done = client.chat.completions.create(model="smollm2-135m", messages=ASK, max_tokens=10)
        replies.append(done.choices[0].message.content)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(replies) == 4
    assert len(set(replies)) == 1


def test_the_network_is_served_only_with_a_key(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--host", "0.0.0.0"]) == 2
    assert "--api-key" in capfd.readouterr().err
