"""A model on somebody else's server, asked over OpenAI's HTTP protocol.

vLLM, llama-server, Ollama and ``ondevice serve`` speak it. What is asked leaves this device, so the
name of such a model says where it goes.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import msgspec

from ondevice import network
from ondevice.checking import check, work_out
from ondevice.engine._reply_text import ReplyText
from ondevice.errors import EngineDied, EngineError, ModelNotFound, UsageError
from ondevice.messages import (
    Chunk,
    Event,
    Finished,
    FinishReason,
    Generate,
    Load,
    Loaded,
    Measure,
    Measured,
    Sampling,
    Sizing,
    Statistics,
    Turn,
    without_password,
)
from ondevice.text import printable, reason

_MESSAGE = 300  # characters of an error that are passed on
#: What is no part of the protocol. Where it is refused, it is left out: the answer comes without.
_THINKING = ("chat_template_kwargs", "thinking_budget_tokens", "thinking_token_budget")
_WRONG_BODY = (400, 422)
_CONNECT_S, _ANSWER_S = 10.0, 600.0  # a long prompt on a slow server takes its time


class _RemotePart(msgspec.Struct, frozen=True):
    text: str | None = None


class _RemoteMessage(msgspec.Struct, frozen=True):
    """A message, or a piece of one. Any field may be missing, or null."""

    content: str | list[_RemotePart] | None = None
    reasoning_content: str | None = None  # vLLM, llama-server, ondevice
    reasoning: str | None = None  # Ollama

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content)
        return self.content or ""


class _RemoteChoice(msgspec.Struct, frozen=True):
    delta: _RemoteMessage | None = None
    message: _RemoteMessage | None = None  # some send the whole one, whatever was asked for
    finish_reason: str | None = None

    @property
    def said(self) -> _RemoteMessage:
        return self.delta or self.message or _RemoteMessage()


class _RemoteDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class _RemoteUsage(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _RemoteDetails | None = None

    @property
    def cached_tokens(self) -> int:
        details = self.prompt_tokens_details
        return details.cached_tokens or 0 if details else 0


class _RemoteEnd(msgspec.Struct, frozen=True, kw_only=True):
    """That a reply is over."""

    reason: FinishReason
    usage: _RemoteUsage = _RemoteUsage()


class _RemoteEvent(msgspec.Struct, frozen=True):
    choices: list[_RemoteChoice] | None = None
    usage: _RemoteUsage | None = None
    error: Any = None


class _RemoteModel(msgspec.Struct, frozen=True):
    id: str


class _RemoteModels(msgspec.Struct, frozen=True):
    data: list[_RemoteModel] | None  # null: Ollama without models


class RemoteEngine:
    """An :class:`ondevice.engine.EngineLike` whose model is named by a URL.

    ``https://host/v1#model`` is the server's base URL and the model there, which may be left out
    where there is only one. ``api_key`` is sent to whatever server is loaded.
    """

    pid: int | None = None
    sizing: Sizing | None = None

    def __init__(self, api_key: str | None = None) -> None:
        self._api_key = api_key
        self._client: httpx2.Client | None = None
        self._model = ""
        self._loaded: Loaded | None = None
        #: Where the thread that talks to the server puts what it hears.
        self._heard: queue.SimpleQueue[Chunk | _RemoteEnd | Exception] = queue.SimpleQueue()

    @property
    def loaded(self) -> Loaded | None:
        return self._loaded

    def load(self, request: Load, on_progress: Callable[[float], None] | None = None) -> Loaded:
        """See that the server answers and has the model.

        Raises :class:`EngineError` if it does not answer and :class:`ModelNotFound`.
        """
        request = check(request, Load)
        self.close()
        started = time.perf_counter()
        url, self._client = _client(request.path, self._api_key)
        self._model = self._choose(url.fragment)
        self._loaded = Loaded(
            path=request.path,
            name=f"{self._model} at {url.host}",
            architecture="",
            quantization="",
            n_params=0,
            n_layers=0,
            n_ctx=0,
            n_ctx_train=0,
            weights_bytes=0,
            kv_bytes=0,
            compute_bytes=0,
            load_ms=(time.perf_counter() - started) * 1e3,
        )
        return self._loaded

    def generate(self, request: Generate) -> Generator[Event, None, None]:
        request = check(request, Generate)
        client = self._client
        if client is None:
            raise UsageError("No model is loaded.")
        if request.grammar is not None:
            raise UsageError(
                "Servers take a JSON schema, but no grammar. Use a model on this disk."
            )
        heard: queue.SimpleQueue[Chunk | _RemoteEnd | Exception] = queue.SimpleQueue()
        self._heard = heard
        left = threading.Event()

        def listen() -> None:
            try:
                for heard_now in self._stream(client, request):
                    heard.put(heard_now)
                    if left.is_set():
                        return
            except Exception as error:
                heard.put(error)

        # In a thread of its own: a server that is silent must not hold up a cancel.
        started = first = time.perf_counter()
        threading.Thread(target=listen, name="remote", daemon=True).start()
        chunks = 0
        try:
            while isinstance(event := heard.get(), Chunk):
                if not chunks:
                    first = time.perf_counter()
                chunks += 1
                yield event
        finally:
            left.set()
        if isinstance(event, Exception):
            raise event
        prompt_tokens = event.usage.prompt_tokens or 0
        yield Finished(
            reason=event.reason,
            statistics=Statistics(
                prompt_tokens=prompt_tokens,
                reused_tokens=event.usage.cached_tokens,
                prompt_ms=(first - started) * 1e3,
                generated_tokens=event.usage.completion_tokens or chunks,
                generated_ms=(time.perf_counter() - first) * 1e3,
                context_tokens=prompt_tokens + (event.usage.completion_tokens or 0),
                n_ctx=0,
                peak_ram_bytes=0,
                seed=request.sampling.seed or 0,
            ),
        )

    def measure(self, request: Measure) -> Measured:
        """The server has the tokenizer, and tells what is too long when it is asked."""
        return Measured(tokens=0, n_ctx=0, texts=(0,) * len(request.texts))

    def resize(self, budget: int | None) -> None:
        """The server's RAM is its own affair."""

    def cancel(self) -> None:
        self._heard.put(_RemoteEnd(reason="cancelled"))

    def answer_now(self) -> None:
        """The protocol has no words for it."""

    def close(self) -> None:
        client, self._client, self._loaded = self._client, None, None
        if client is not None:
            self.cancel()
            client.close()

    def _choose(self, wanted: str) -> str:
        assert self._client is not None
        with _failures():
            answer = self._client.get("models")
            if wanted and answer.status_code in (404, 405):  # it lists none
                return wanted
            _check(answer)
            listed = msgspec.json.decode(answer.content, type=_RemoteModels).data or []
            names = [model.id for model in listed]
        if wanted in names or (wanted and not names):
            return wanted
        if not wanted and len(names) == 1:
            return names[0]
        url = without_password(str(self._client.base_url)).rstrip("/")
        if not names:
            raise ModelNotFound(f"The server at {url} has no models yet. Add one to it first.")
        lines = "".join(f"\n  {url}#{name}" for name in names)
        raise ModelNotFound(f"Choose one of this server's models:{lines}")

    def _stream(self, client: httpx2.Client, request: Generate) -> Iterator[Chunk | _RemoteEnd]:
        usage = _RemoteUsage()
        reason: FinishReason | None = None
        done = False
        text = ReplyText("", ())  # thinking may stand in the text, between tags
        try:
            for piece in self._pieces(client, _body(request, self._model)):
                if piece is None:
                    done = True
                    break
                usage = piece.usage or usage
                for choice in piece.choices or ():
                    if choice.finish_reason:
                        reason = "length" if choice.finish_reason == "length" else "stop"
                    if thought := choice.said.reasoning_content or choice.said.reasoning:
                        yield Chunk(text=thought, part="thinking")
                    yield from text.feed(choice.said.text.encode("utf-8", "replace"))
        except EngineDied:
            yield from text.finish()
            if reason is None:  # else the reply was complete
                raise
        else:
            yield from text.finish()
            if reason is None and not done:
                raise EngineDied(
                    "The connection to the server broke before the reply was complete. "
                    "What arrived is kept. Send the message again."
                )
        yield _RemoteEnd(reason=reason or "stop", usage=usage)

    def _pieces(self, client: httpx2.Client, body: dict[str, Any]) -> Iterator[_RemoteEvent | None]:
        """What the server sends, None for the mark of the end."""
        with _failures(), client.sse("chat/completions", method="POST", json=body) as events:
            response = events.response
            known = {name: value for name, value in body.items() if name not in _THINKING}
            if response.status_code in _WRONG_BODY and known != body:
                response.read()
                yield from self._pieces(client, known)
                return
            _check(response)
            if "json" in response.headers.get("content-type", ""):  # the whole reply in one piece
                yield _decoded(response.read())
                return
            for event in events:
                if event.data.strip() == "[DONE]":
                    yield None
                elif event.data.strip():
                    yield _decoded(event.data)


work_out(_RemoteModels, _RemoteEvent)


def _decoded(data: bytes | str) -> _RemoteEvent:
    piece = msgspec.json.decode(data, type=_RemoteEvent)
    if piece.error is not None:
        text = data if isinstance(data, str) else data.decode("utf-8", "replace")
        raise EngineError(f"The server reported an error: {_message(text)}")
    return piece


def _client(path: str, api_key: str | None) -> tuple[httpx2.URL, httpx2.Client]:
    """The URL of a model, and what talks to its server. Raises :class:`UsageError`."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        url = httpx2.URL(path)
        client = httpx2.Client(
            base_url=str(url.copy_with(fragment=None)).rstrip("/") + "/",
            headers=headers,
            timeout=httpx2.Timeout(_ANSWER_S, connect=_CONNECT_S),
            mounts=network.mounts(url.host),
        )
    except httpx2.InvalidURL as error:
        raise UsageError(
            f"{printable(without_password(path))} is not a valid URL: {error}."
        ) from error
    except (ValueError, ImportError) as error:
        raise UsageError(
            f"The proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used: {error} "
            "Unset the variable, or add the server to NO_PROXY."
        ) from error
    return url, client


def _body(request: Generate, model: str) -> dict[str, Any]:
    """What every server of this protocol understands, and of the rest what is asked for."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": _in_turn(request.turns),
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    usual = Sampling()  # what is as usual is left to the server: not all know these
    if sampling.top_k != usual.top_k:
        body["top_k"] = sampling.top_k
    if sampling.min_p != usual.min_p:
        body["min_p"] = sampling.min_p
    if sampling.repeat_penalty != usual.repeat_penalty:
        body["repeat_penalty"] = sampling.repeat_penalty  # llama-server, ondevice
        body["repetition_penalty"] = sampling.repeat_penalty  # vLLM
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.stop:
        body["stop"] = list(request.stop)
    if request.json_schema is not None:
        schema = {"name": "answer", "schema": json.loads(request.json_schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.thinking is not None:
        body["chat_template_kwargs"] = {"enable_thinking": request.thinking}
    if request.thinking_tokens is not None:
        body["thinking_budget_tokens"] = request.thinking_tokens  # llama-server, ondevice
        body["thinking_token_budget"] = request.thinking_tokens  # vLLM
    return body


def _in_turn(turns: Iterable[Turn]) -> list[dict[str, str]]:
    """User and assistant in turn, as the templates of many servers want them."""
    messages: list[dict[str, str]] = []
    for turn in turns:
        if messages and messages[-1]["role"] == turn.role:
            messages[-1]["content"] += f"\n\n{turn.content}"
        else:
            messages.append({"role": turn.role, "content": turn.content})
    return messages


@contextmanager
def _failures() -> Iterator[None]:
    """Errors of the connection as errors of ours."""
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise EngineError(f"The server does not answer: {reason(error)}. Is it running?") from error
    except httpx2.SSEError as error:
        raise EngineDied(
            "The connection to the server broke: it did not send a stream of events "
            f"({error}). Most URLs end in /v1."
        ) from error
    except httpx2.HTTPError as error:
        what = reason(error) or type(error).__name__
        raise EngineDied(
            f"The connection to the server broke: {what}. What arrived is kept. Send the "
            "message again."
        ) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EngineError(
            f"The server does not speak OpenAI's protocol ({error}). Most URLs end in /v1."
        ) from error


def _check(response: httpx2.Response) -> None:
    if not response.is_success:
        text = response.read().decode("utf-8", "replace")
        hint = " Set the key in ONDEVICE_API_KEY." if response.status_code == 401 else ""
        raise EngineError(
            f"The server refused the request ({response.status_code}): {_message(text)}{hint}"
        )


def _message(text: str) -> str:
    """What an answer of a server says of an error: as OpenAI does, or in plain text."""
    try:
        said: Any = json.loads(text)
        said = said.get("error", said)
        said = said.get("message", said) if isinstance(said, dict) else said
    except (ValueError, AttributeError):
        said = text
    return printable(str(said))[:_MESSAGE]
