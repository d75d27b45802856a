"""Models on servers: our own server at the other end, then servers that misbehave."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ondevice.engine import AnyEngine
from ondevice.errors import EngineDied, EngineError, ModelNotFound, OndeviceError, UsageError
from ondevice.messages import Chunk, Finished, Generate, Load, Sampling, Turn
from ondevice.models import title_of

GREEDY = Sampling(temperature=0)
QUESTION = (Turn("system", "You are a helpful assistant."), Turn("user", "The capital of France?"))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[AnyEngine]:
    monkeypatch.setenv("ONDEVICE_API_KEY", "a-key")
    with closing(AnyEngine()) as engine:
        yield engine


def ask(engine: AnyEngine, **options: Any) -> tuple[str, Finished]:
    request = Generate(turns=QUESTION, sampling=GREEDY, **options)
    *chunks, finished = engine.generate(request)
    assert isinstance(finished, Finished)
    return "".join(c.text for c in chunks if isinstance(c, Chunk)), finished


def test_a_server_answers_as_the_model_does_here(
    server_url: str, default_model: str, engine: AnyEngine
) -> None:
    loaded = engine.load(Load(path=server_url))
    assert loaded.name == "smollm2-135m at 127.0.0.1"
    remote, finished = ask(engine)
    assert finished.reason == "stop"
    assert finished.statistics.generated_tokens > 0
    assert ask(engine, max_tokens=2)[1].reason == "length"
    assert json.loads(ask(engine, json_schema='{"const": 7}')[0]) == 7
    with pytest.raises(UsageError, match="grammar"):
        ask(engine, grammar='root ::= "a"')
    engine.load(Load(path=str(default_model), n_ctx=512))
    assert ask(engine)[0].strip() == remote.strip()


def test_ask_says_where_the_question_goes(server_url: str, engine: AnyEngine) -> None:
    command = [sys.executable, "-m", "ondevice", "ask", "-m", f"{server_url}#smollm2-135m"]
    done = subprocess.run([*command, "Hi"], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
    assert "goes to smollm2-135m at 127.0.0.1" in done.stderr


def test_a_model_that_is_not_there_is_named(server_url: str, engine: AnyEngine) -> None:
    with pytest.raises(ModelNotFound, match="#smollm2-135m"):
        engine.load(Load(path=f"{server_url}#other"))


def test_a_wrong_key(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONDEVICE_API_KEY", "wrong")
    with closing(AnyEngine()) as engine, pytest.raises(EngineError, match="ONDEVICE_API_KEY"):
        engine.load(Load(path=server_url))


def test_no_server(engine: AnyEngine) -> None:
    with pytest.raises(EngineError, match=r"does not answer: [A-Z][^\[]*\. Is it running"):
        engine.load(Load(path="http://127.0.0.1:9/v1"))


# ------------------------------------------------------------- servers that misbehave


class Asked(BaseHTTPRequestHandler):
    asked: dict[str, object]


Answer = Callable[[Asked], None]
OddServer = Callable[..., str]


@pytest.fixture
def odd_server() -> Iterator[OddServer]:
    """Starts a server that lists one model and gives this answer; returns its URL."""
    servers = []

    def start(answer: Answer, models: bytes = b'{"data": [{"id": "m"}]}') -> str:
        class Handler(Asked):
            def do_GET(self) -> None:
                send(self, models)

            def do_POST(self) -> None:
                self.asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200) -> None:
    handler.send_response(status)
    kind = "text/event-stream" if body.startswith(b"data:") else "application/json"
    handler.send_header("Content-Type", kind)
    handler.end_headers()
    handler.wfile.write(body)


CHUNK = b'data: {"choices": [{"delta": {"content": "Hello"}}]}\n\n'


@pytest.mark.parametrize(
    ("body", "status", "error", "words"),
    [
        (b'{"error": {"message": "too busy"}}', 503, EngineError, "too busy"),
        (b"<html>Bad\x1b[2Jgateway", 502, EngineError, "gateway"),
        (b"data: not json\n\n", 200, EngineError, "protocol"),
        (b"{}", 200, EngineDied, "broke"),
        (CHUNK + b'data: {"error": {"message": "no RAM"}}\n\n', 200, EngineError, "no RAM"),
    ],
)
def test_what_a_server_says_wrong_is_an_error(
    engine: AnyEngine,
    odd_server: OddServer,
    body: bytes,
    status: int,
    error: type[OndeviceError],
    words: str,
) -> None:
    engine.load(Load(path=odd_server(lambda handler: send(handler, body, status))))
    with pytest.raises(error, match=words) as caught:
        ask(engine)
    assert "\x1b" not in str(caught.value)


def chunk(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def said(text: object, **fields: object) -> bytes:
    return chunk(choices=[{"index": 0, "delta": {"content": text, **fields}}], usage=None)


STOP = chunk(choices=[{"delta": {}, "finish_reason": "stop"}])


@pytest.mark.parametrize(
    "body",
    [
        CHUNK + STOP,
        CHUNK + b"data: [DONE]\n\n",
        said(None, role="assistant", reasoning=None) + CHUNK + STOP + b"data: [DONE]\n\n",
        CHUNK + chunk(choices=[{"delta": None, "finish_reason": "stop"}]),
        CHUNK + chunk(choices=None, usage={"prompt_tokens": None}) + b"data:\n\n" + STOP,
        CHUNK + STOP + chunk(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 1}),
        chunk(choices=[{"message": {"content": "Hello"}, "finish_reason": "stop"}]),
        said([{"type": "text", "text": "Hello"}]) + STOP,
        b'{"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}',
    ],
)
def test_all_forms_of_an_answer_are_understood(
    engine: AnyEngine, odd_server: OddServer, body: bytes
) -> None:
    engine.load(Load(path=odd_server(lambda handler: send(handler, body))))
    text, finished = ask(engine)
    assert (text, finished.reason) == ("Hello", "stop")


@pytest.mark.parametrize("body", [b"data:\n\n", CHUNK, CHUNK + said(" wor")])
def test_a_reply_that_was_cut_is_not_taken_for_a_whole_one(
    engine: AnyEngine, odd_server: OddServer, body: bytes
) -> None:
    engine.load(Load(path=odd_server(lambda handler: send(handler, body))))
    with pytest.raises(EngineDied, match="What arrived is kept"):
        list(engine.generate(Generate(turns=QUESTION)))
    came = []
    with contextlib.suppress(EngineDied):
        for event in engine.generate(Generate(turns=QUESTION)):
            assert isinstance(event, Chunk)
            came.append(event.text)
    assert "".join(came) == {0: "", 1: "Hello", 2: "Hello wor"}[body.count(b"content")]


def test_thinking_between_tags_comes_apart(engine: AnyEngine, odd_server: OddServer) -> None:
    body = said("<thi") + said("nk>Hm.</th") + said("ink>\n\nHello") + STOP
    engine.load(Load(path=odd_server(lambda handler: send(handler, body))))
    chunks = [e for e in engine.generate(Generate(turns=QUESTION)) if isinstance(e, Chunk)]
    assert "".join(chunk.text for chunk in chunks if chunk.part == "thinking") == "Hm."
    assert "".join(chunk.text for chunk in chunks if chunk.part == "answer") == "Hello"


def test_what_is_asked_for_is_sent(engine: AnyEngine, odd_server: OddServer) -> None:
    bodies: list[dict[str, object]] = []

    def note(handler: Asked) -> None:
        bodies.append(handler.asked)
        send(handler, CHUNK + STOP)

    engine.load(Load(path=odd_server(note)))
    sampling = Sampling(top_k=1, min_p=0.2, repeat_penalty=1.5)
    list(engine.generate(Generate(turns=QUESTION, sampling=sampling)))
    list(engine.generate(Generate(turns=QUESTION)))
    assert bodies[0]["top_k"] == 1
    assert bodies[0]["min_p"] == 0.2
    assert bodies[0]["repeat_penalty"] == bodies[0]["repetition_penalty"] == 1.5
    assert "top_k" not in bodies[1]  # OpenAI's own refuses what it does not know


@pytest.mark.parametrize("status", [200, 400, 422])
def test_a_limit_on_thinking_is_sent_and_never_an_error(
    engine: AnyEngine, odd_server: OddServer, status: int
) -> None:
    bodies: list[dict[str, object]] = []

    def choosy(handler: Asked) -> None:
        bodies.append(handler.asked)
        if status != 200 and "thinking_token_budget" in handler.asked:
            send(handler, b'{"error": {"message": "Unknown parameter."}}', status=status)
        else:
            send(handler, CHUNK + STOP)

    engine.load(Load(path=odd_server(choosy)))
    events = engine.generate(Generate(turns=QUESTION, thinking=True, thinking_tokens=50))
    first = next(events)
    engine.answer_now()
    assert first == Chunk(text="Hello")
    assert isinstance([*events][-1], Finished)
    assert bodies[0]["thinking_budget_tokens"] == bodies[0]["thinking_token_budget"] == 50
    assert len(bodies) == (1 if status == 200 else 2)
    assert not any("thinking" in name for name in bodies[-1]) or status == 200


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5h://127.0.0.1:9", "nonsense://x"])
def test_a_proxy_learns_nothing_of_this_machine(
    odd_server: OddServer,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    proxy: str,
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, proxy)
    url = odd_server(lambda handler: send(handler, CHUNK + STOP))
    with closing(AnyEngine()) as engine:
        if proxy.startswith("nonsense"):
            with pytest.raises(UsageError, match="PROXY"):
                engine.load(Load(path=url))
            return
        for near in (url, url.replace("127.0.0.1", "localhost")):
            engine.load(Load(path=near))
            assert ask(engine)[0] == "Hello"
        with pytest.raises(OndeviceError, match="server"):
            engine.load(Load(path="http://far.example/v1"))


def test_a_server_without_models_says_so(engine: AnyEngine, odd_server: OddServer) -> None:
    url = odd_server(lambda handler: send(handler, CHUNK + STOP), models=b'{"data": null}')
    with pytest.raises(ModelNotFound, match="no models"):
        engine.load(Load(path=url))
    engine.load(Load(path=f"{url}#m"))


@pytest.mark.parametrize("url", ["http://[::1/v1", "http://\x00/", "http://a:99999999/v1"])
def test_a_url_that_is_none(engine: AnyEngine, url: str) -> None:
    with pytest.raises(OndeviceError):
        engine.load(Load(path=url))


def test_thinking_comes_apart(engine: AnyEngine, odd_server: OddServer) -> None:
    thought = b'data: {"choices": [{"delta": {"reasoning_content": "Hm."}}]}\n\n'
    engine.load(Load(path=odd_server(lambda h: send(h, thought + CHUNK + b"data: [DONE]\n\n"))))
    first, second, _ = engine.generate(Generate(turns=QUESTION))
    assert first == Chunk(text="Hm.", part="thinking")
    assert second == Chunk(text="Hello")


def test_a_silent_server_can_be_cancelled(engine: AnyEngine, odd_server: OddServer) -> None:
    over = threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        send(handler, CHUNK)
        over.wait(30)

    engine.load(Load(path=odd_server(hang)))
    events = engine.generate(Generate(turns=QUESTION))
    assert next(events) == Chunk(text="Hello")
    engine.cancel()
    finished = next(events)
    over.set()
    assert isinstance(finished, Finished)
    assert finished.reason == "cancelled"


@pytest.mark.parametrize("login", ["me:pa@ss@", "me@", ""])
def test_who_logs_in_is_not_shown(odd_server: OddServer, login: str) -> None:
    shown = odd_server(lambda _: None, models=b'{"data": [{"id": "one"}, {"id": "two"}]}')
    url = shown.replace("://", f"://{login}")
    assert title_of(f"{url}#a@b") == f"{shown}#a@b"
    with closing(AnyEngine()) as engine, pytest.raises(ModelNotFound) as caught:
        engine.load(Load(path=url))
    assert str(caught.value).endswith(f"  {shown}#one\n  {shown}#two")
