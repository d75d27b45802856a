"""``ondevice serve`` among clients that leave, are slow, ask nonsense or are web pages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import httpx2
import msgspec
import pytest
import server_process
import tiny_model
from server_process import Server, chat, post, status
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from ondevice.cli import run
from ondevice.config import Settings
from ondevice.messages import Sampling
from ondevice.server import _connections
from ondevice.server._protocol import ChatRequest

JSON = {"Content-Type": "application/json"}
HI = [{"role": "user", "content": "Hi"}]
MISSING = "missing_required_parameter"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("model") / "babbler.gguf")


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a model that babbles fast."""
    home = tmp_path_factory.mktemp("home")
    with server_process.running(home, "-m", str(model), "--host-name", "my.box") as server:
        yield server
        said = server.end()
        assert "Traceback" not in said, said


@pytest.fixture
def client(server: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"{server.url}/", timeout=30) as client:
        yield client


def ask(client: httpx2.Client, **options: object) -> httpx2.Response:
    return client.post("chat/completions", json={"messages": HI, "max_tokens": 4, **options})


# ------------------------------------------------------------- models and their names


def test_a_model_named_by_its_file_is_served_by_its_name(client: httpx2.Client) -> None:
    listed = client.get("models/").json()["data"]
    assert [model["id"] for model in listed] == ["babbler"]
    assert client.get("models/babbler").json() == listed[0]
    assert client.get("models/other").status_code == 404
    for name in (None, "babbler", "auto"):
        reply = ask(client, model=name, temperature=0).json()
        assert reply["model"] == "babbler"
        assert reply["choices"][0]["message"]["content"]


@pytest.mark.parametrize("model", ["no-such-model", "http://127.0.0.1:9/v1#other"])
def test_what_cannot_be_served_is_said_at_once(
    model: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "--port", "0", "-m", model]) != 0
    assert "Serving" not in capfd.readouterr().err


def test_a_model_whose_file_changed_is_loaded_again(tmp_path: Path) -> None:
    file = tiny_model.write(tmp_path / "babbler.gguf")
    with (
        server_process.running(tmp_path, "-m", str(file)) as server,
        httpx2.Client(base_url=f"{server.url}/", timeout=30) as client,
    ):
        assert ask(client).status_code == 200
        os.utime(file)
        assert ask(client).status_code == 200
        tiny_model.write(tmp_path / "new.gguf", tied=False).replace(file)
        assert ask(client, model="babbler").status_code == 200
        file.unlink()
        gone = ask(client)
        assert gone.status_code in (404, 500)
        assert "babbler" in gone.json()["error"]["message"]


# ------------------------------------------------------------- what is asked


def test_a_conversation_that_is_too_long_is_refused_each_time(client: httpx2.Client) -> None:
    turn = [{"role": "user", "content": "x" * 40}, {"role": "assistant", "content": "y" * 40}]
    for _ in range(2):
        refused = ask(client, messages=[*turn * 5, *HI])
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        assert refused.json()["error"]["type"] == "invalid_request_error"
    assert ask(client, messages=[*turn * 2, *HI]).status_code == 200


@pytest.mark.parametrize(
    "options",
    [
        {"messages": [{"role": "system", "content": "Say hi."}]},
        {"stream": None, "max_tokens": None, "stop": ["a"]},
        {"n": 1, "tools": [], "tool_choice": "none", "logit_bias": {}, "modalities": ["text"]},
        {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "low"},
        {"thinking_budget_tokens": 0, "thinking_token_budget": -1},
        {"grammar": 'root ::= "a"', "user": "somebody"},
        {"grammar": 'root ::= "a"', "max_tokens": -1, "top_k": -1},
        {"seed": 2**60},
    ],
)
def test_what_can_be_done_is_done(client: httpx2.Client, options: dict[str, object]) -> None:
    reply = ask(client, **options)
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(
    ("options", "thinking", "limit"),
    [
        ({}, True, 300),
        ({"reasoning_effort": "none"}, False, 300),
        ({"thinking_budget_tokens": 5}, True, 5),
        ({"thinking_token_budget": 0}, True, 0),
        ({"thinking_token_budget": 7, "thinking_budget_tokens": -1}, True, None),
    ],
)
def test_a_client_may_limit_thinking_otherwise_than_the_settings(
    options: dict[str, object], thinking: bool, limit: int | None
) -> None:
    asked = msgspec.convert({"messages": HI, **options}, ChatRequest)
    request = asked.generate(Settings(thinking=300))
    assert (request.thinking, request.thinking_tokens) == (thinking, limit)


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7),
        ({"max_tokens": 5, "max_completion_tokens": -1}, None),
    ],
)
def test_a_client_may_limit_the_reply_or_not(options: dict[str, int], most: int | None) -> None:
    asked = msgspec.convert({"messages": HI, "top_k": -1, "seed": -1, **options}, ChatRequest)
    request = asked.generate(Settings(sampling=Sampling(seed=5)))
    assert (request.max_tokens, request.sampling.top_k, request.sampling.seed) == (most, 0, None)


@pytest.mark.parametrize(
    "options",
    [
        {"logit_bias": {"5": 100}},
        {"functions": [{"name": "f"}]},
        {"tool_choice": "required"},
        {"top_logprobs": 3},
        {"modalities": ["audio"]},
        {"guided_json": {}, "guided_regex": "a"},
        {"temperature": -1},
        {"top_p": 7},
        {"min_p": 5},
        {"repeat_penalty": 0},
        {"top_k": 10**11},
        {"max_tokens": 0},
        {"thinking_budget_tokens": -2},
        {"thinking_token_budget": "some"},
        {"max_completion_tokens": 0},
        {"messages": [{"role": "tool", "content": "5"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"response_format": {"type": "json_schema"}},
    ],
)
def test_what_cannot_be_done_is_refused(client: httpx2.Client, options: dict[str, object]) -> None:
    refused = ask(client, **options)
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "param", "code", "words"),
    [
        ({"n": 0}, "n", "invalid_value", "at least 1, not 0"),
        ({"n": True}, "n", "invalid_value", "whole number"),
        ({"n": 2}, "n", "unsupported_parameter", "can only be 1"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter", "response_format"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter", "not supported"),
        ({"temperature": "hot"}, "temperature", "invalid_value", 'from 0 to 100, not "hot"'),
        ({"max_tokens": -2}, "max_tokens", "invalid_value", "not -2"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value", "at least 1"),
        ({"stop": 5}, "stop", "invalid_value", "text or a list"),
        ({"messages": None}, "messages", "invalid_value", "a list"),
        ({"stop": True}, "stop", "invalid_value", "not true"),
        ({"stop": ["a", None]}, "stop[1]", "invalid_value", "must be text, not null"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            "messages[0].content[0].text",
            "invalid_value",
            "must be text, not 5",
        ),
        ({"messages": []}, "messages", "invalid_value", "a list of at least one"),
        ({"messages": [5]}, "messages[0]", "invalid_value", "messages[0]"),
        ({"messages": [*HI, {"content": "x"}]}, "messages[1].role", MISSING, "is missing"),
        ({"messages": [*HI, {"role": "x"}]}, "messages[1].role", None, '"x"'),
        ({"messages": [{"role": "user"}]}, "messages[0].content", MISSING, "is missing"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", MISSING, ""),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value", "one of"),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            MISSING,
            "json_schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": True}}},
            "response_format.json_schema.schema",
            "invalid_value",
            "must be a table, not",
        ),
        ({"model": "gpt-x"}, "model", "model_not_found", "gpt-x"),
        (
            {"messages": [{"role": "user", "content": "x" * 600}]},
            "messages",
            "context_length_exceeded",
            "is longer than the model's context length",  # litellm knows it by these words
        ),
    ],
)
def test_an_error_names_the_field_and_the_mistake_in_plain_words(
    client: httpx2.Client, body: dict[str, object], param: str, code: str | None, words: str
) -> None:
    refused = ask(client, **body)
    assert 400 <= refused.status_code < 500
    error = refused.json()["error"]
    assert (error["param"], error["code"]) == (param, code), error
    assert words in error["message"]
    assert "`" not in error["message"], "the words of a library"


def test_a_body_that_is_no_object_is_refused_in_plain_words(client: httpx2.Client) -> None:
    for content in (b"", b" ", b"[]", b"null", b'"x"', b"5", b"{", b"[" * 5000, b"\xff{}"):
        refused = client.post("chat/completions", content=content, headers=JSON)
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert error["param"] is None
        assert "`" not in error["message"]
    missing = client.post("chat/completions", content=b"{}", headers=JSON).json()["error"]
    assert (missing["param"], missing["code"]) == ("messages", MISSING)


def test_embeddings_are_of_texts(client: httpx2.Client) -> None:
    assert client.post("embeddings", json={"input": ["a", "b"]}).status_code == 200
    refused = client.post("embeddings", json={"input": None}).json()["error"]
    assert refused["message"] == "input must be text or a list, not null."
    wrong: list[dict[str, object]] = [
        {"input": [[1, 2]]},
        {"input": []},
        {"input": "a", "dimensions": 3},
    ]
    for bad in wrong:
        assert client.post("embeddings", json=bad).status_code == 400


def test_a_wrong_place_is_said_in_the_same_form(client: httpx2.Client) -> None:
    assert "/v1/models" in client.get("nothing").json()["error"]["message"]
    wrong = client.get("chat/completions")
    assert wrong.status_code == 405
    assert wrong.headers["Allow"] == "POST"
    assert wrong.json()["error"]["type"] == "invalid_request_error"


# ------------------------------------------------------------- who asks


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({**JSON, "Origin": "https://evil.example"}, 403),
        ({**JSON, "Origin": "null"}, 403),
        ({**JSON, "Sec-Fetch-Site": "cross-site"}, 403),
        ({**JSON, "Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain", "Origin": "https://evil.example"}, 403),
        ({"Content-Type": "text/plain;charset=UTF-8"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({**JSON, "Host": "evil.example"}, 400),
        ({**JSON, "Host": "[::1"}, 400),
        ({}, 200),
        ({**JSON, "Sec-Fetch-Site": "none"}, 200),
        ({**JSON, "Host": "127.0.0.2:80"}, 200),
        ({**JSON, "Host": "My.Box"}, 200),
        ({**JSON, "Host": "localhost:80", "Origin": "http://localhost:80"}, 200),
    ],
)
def test_web_pages_are_kept_out(
    client: httpx2.Client, headers: dict[str, str], expected: int
) -> None:
    body = json.dumps({"messages": HI, "max_tokens": 1}).encode()
    answer = client.post("chat/completions", content=body, headers=headers)
    assert answer.status_code == expected, answer.text
    if expected == 415:
        assert "application/json" in answer.json()["error"]["message"]


def test_the_key_is_taken_as_the_protocol_says(tmp_path: Path) -> None:
    with server_process.running(tmp_path, "--api-key", "schlüssel", "--host", "127.0.0.2") as one:
        url = f"{one.url}/models"
        key = "schlüssel".encode()
        for given, expected in ((b"Bearer " + key, 200), (b"bearer " + key, 200), (key, 401)):
            assert httpx2.get(url, headers=[(b"Authorization", given)]).status_code == expected
        refused = httpx2.get(url)
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert refused.json()["error"]["code"] == "invalid_api_key"


# ------------------------------------------------------------- who leaves, and who is slow


@contextlib.contextmanager
def long_reply(server: Server) -> Iterator[socket.socket]:
    """The engine is busy until this connection is closed."""
    with server.connect() as connection:
        texts = json.dumps({"input": ["some words to embed"] * 20_000}).encode()
        connection.sendall(post("/v1/embeddings", texts))
        yield connection


def test_who_waits_and_leaves_takes_no_place(server: Server, client: httpx2.Client) -> None:
    with long_reply(server):
        for _ in range(40):
            with server.connect() as connection:
                connection.sendall(chat(stream=True))
        waiting = [server.connect() for _ in range(20)]
        for connection in waiting:
            connection.sendall(chat())
        refused = ask(client)
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) > 0
        for connection in waiting:
            connection.close()
    assert ask(client).status_code == 200  # long before the texts could be embedded


def test_ctrl_c_ends_it_without_fuss(model: Path, tmp_path: Path) -> None:
    with server_process.running(tmp_path, "-m", str(model)) as server:
        with long_reply(server), server.connect() as waiting:
            # There is nothing to wait for that tells that they are under way.
            time.sleep(0.3)
            waiting.sendall(chat(stream=True))
            time.sleep(0.3)
            server.process.send_signal(signal.SIGINT)
            assert status(waiting) in (0, 503)
            said = server.process.communicate(timeout=20)[1]
        assert server.process.returncode == 0
        assert said == ""


class TinyServer(NamedTuple):
    connect: Callable[[], socket.socket]
    left: threading.Event  # set when the application ends because its client has left


@pytest.fixture
def tiny_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyServer]:
    """A server of an application that sends for ever, with short times."""
    for name in ("_HEAD_S", "_BODY_S", "_TAKE_S"):
        monkeypatch.setattr(_connections, name, 0.3)
    monkeypatch.setattr(_connections, "_MOST", 5)
    left = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        request = Request(scope, receive)
        await request.body()
        if scope["path"] != "/flood":
            await PlainTextResponse("ok")(scope, receive, send)
            return

        async def lines() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 60_000
                    await asyncio.sleep(0)
            finally:
                left.set()

        await StreamingResponse(lines())(scope, receive, send)

    server = _connections.server_of(app, lambda: None)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()

    def connect() -> socket.socket:
        return socket.create_connection(listening.getsockname(), timeout=10)

    yield TinyServer(connect, left)
    server.should_exit = True
    thread.join(10)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT",
    ],
)
def test_what_never_comes_is_not_waited_for(tiny_server: TinyServer, sent: bytes) -> None:
    with tiny_server.connect() as connection:
        connection.sendall(sent)
        with contextlib.suppress(ConnectionError):
            while connection.recv(10_000):
                pass


def test_who_does_not_read_is_let_go(tiny_server: TinyServer) -> None:
    with tiny_server.connect() as connection:
        connection.sendall(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        assert tiny_server.left.wait(10)


def test_idle_connections_make_room(tiny_server: TinyServer) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(20):
            connection = held.enter_context(tiny_server.connect())
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert status(connection) == 200


def test_a_body_that_is_no_http_is_refused_once(server: Server) -> None:
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    for body in (b"zz\r\n", b"3\r\n{}\r\n", b"-1\r\n\r\n"):
        with server.connect() as connection:
            connection.sendall(head + body)
            assert status(connection) == 400  # and no traceback, as the fixture looks at


# ------------------------------------------------------------- nonsense

SEEDS = [
    chat(stream=True),
    chat(response_format={"type": "json_schema", "json_schema": {"schema": {"const": 1}}}),
    chat(messages=[{"role": "system", "content": "Ä"}, {"role": "user", "content": [
        {"type": "text", "text": "é"}]}], temperature=0.5, stop=["\n"], seed=1),
    post("/v1/embeddings", b'{"input": ["a", "b"], "model": "babbler"}'),
    b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n",
]  # fmt: skip
ODD = [
    b"\xff\xfe", b"\\ud800", b"null", b"-1", b"1e400", b"NaN", b"[" * 2000, b'{"a":' * 2000,
    b"9" * 400, b"\x00", b"\r\n", b"true", b'""', b"[]", b"{}", b"\r\n\r\n", b":", b'"', b"%00",
    b"Transfer-Encoding: chunked\r\n", b"Origin: x\r\n", b"Expect: 100-continue\r\n", b"../..",
]  # fmt: skip


def mutated(random: Random) -> bytes:
    """A request with some of it changed; mostly with the right length."""
    head, _, body = random.choice(SEEDS).partition(b"\r\n\r\n")
    for _ in range(random.randint(1, 4)):
        part = bytearray(body if body and random.random() < 0.8 else head)
        at = random.randrange(len(part))
        match random.randrange(4):
            case 0:
                part[at] = random.randrange(256)
            case 1:
                del part[at : at + random.randint(1, 20)]
            case 2:
                part[at:at] = random.choice(ODD)
            case 3:  # in place of a value
                end = part.find(b",", at)
                part[at : end if end >= 0 else at] = random.choice(ODD)
        if body and bytes(part[:4]) != head[:4]:
            body = bytes(part)
        else:
            head = bytes(part)
    if random.random() < 0.9 and b"Content-Length" in head:
        head = head.partition(b"Content-Length")[0] + f"Content-Length: {len(body)}".encode()
    return head + b"\r\n\r\n" + body


@pytest.mark.random
def test_nonsense_is_refused_and_harms_nobody(
    server: Server, client: httpx2.Client, rounds: Callable[[int], Iterator[Random]]
) -> None:
    for random in rounds(150):
        request = mutated(random)
        with server.connect() as connection:
            connection.sendall(request)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            assert status(connection) < 500, request
        if random.random() < 0.1:
            assert ask(client).status_code == 200, request


@pytest.mark.random
def test_clients_that_leave_at_any_time_free_the_engine(
    server: Server, client: httpx2.Client, rounds: Callable[[int], Iterator[Random]]
) -> None:
    many = post("/v1/embeddings", json.dumps({"input": ["some words"] * 5_000}).encode())
    for random in rounds(25):
        connections = []
        for _ in range(random.randint(1, 6)):
            connection = server.connect()
            request = random.choice([chat(max_tokens=200, stream=True), chat(), many])
            connection.sendall(request[: random.choice([len(request), random.randint(1, 400)])])
            connections.append(connection)
        random.shuffle(connections)
        for connection in connections:
            time.sleep(random.random() * 0.03)
            if random.random() < 0.3:
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # close with a reset
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()
        assert ask(client).status_code == 200
