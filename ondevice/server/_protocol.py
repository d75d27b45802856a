"""The part of OpenAI's HTTP protocol that is spoken here: what requests mean, what answers hold.

https://platform.openai.com/docs/api-reference/chat. What a client asks for and cannot have is
refused, not passed over.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from ondevice.engine.messages import Chunk, Event, Finished, Generate, Sampling, Turn
from ondevice.errors import UsageError

_SEEDS = 2**32 - 1


class Part(msgspec.Struct, frozen=True):
    """A piece of a message."""

    type: str
    text: str = ""


class Message(msgspec.Struct, frozen=True):
    role: str
    content: str | list[Part] | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class JsonSchema(msgspec.Struct, frozen=True):
    schema: dict[str, Any] = {}


class ResponseFormat(msgspec.Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema = JsonSchema()


class ChatRequest(msgspec.Struct, frozen=True):
    """The body of ``POST /v1/chat/completions``; fields not named here are passed over."""

    messages: list[Message]
    model: str = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    response_format: ResponseFormat | None = None
    # These are known only to be refused.
    n: int | None = None
    tools: list[Any] | None = None
    logprobs: bool | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None

    def generate(self, defaults: Sampling) -> Generate:
        """What the engine is asked. Raises :class:`UsageError` for what it cannot do."""
        for name, value in (
            ("n", self.n not in (None, 1)),
            ("tools", self.tools),
            ("logprobs", self.logprobs),
            ("frequency_penalty", self.frequency_penalty),
            ("presence_penalty", self.presence_penalty),
        ):
            if value:
                raise UsageError(f'"{name}" is not supported here. Leave it out.')
        given = {
            name: value
            for name in ("temperature", "top_p", "top_k", "min_p", "repeat_penalty")
            if (value := getattr(self, name)) is not None
        }
        if self.seed is not None:
            given["seed"] = self.seed % _SEEDS
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Generate(
            turns=tuple(_turn(message) for message in self.messages),
            sampling=msgspec.structs.replace(defaults, **given),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            stop=stop,
            json_schema=self._schema(),
        )

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with what the reply took."""
        return self.stream_options is not None and self.stream_options.include_usage

    def _schema(self) -> str | None:
        match self.response_format:
            case ResponseFormat(type="json_object"):
                return '{"type": "object"}'
            case ResponseFormat(type="json_schema", json_schema=wanted):
                return json.dumps(wanted.schema)
        return None


class EmbeddingsRequest(msgspec.Struct, frozen=True):
    """The body of ``POST /v1/embeddings``."""

    input: str | list[str]
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.input,) if isinstance(self.input, str) else tuple(self.input)


def _turn(message: Message) -> Turn:
    if isinstance(message.content, list):
        if other := next((part.type for part in message.content if part.type != "text"), None):
            raise UsageError(f'A message has a part of type "{other}". Only text is understood.')
        content = "".join(part.text for part in message.content)
    else:
        content = message.content or ""
    match message.role:
        case "system" | "developer":
            return Turn("system", content)
        case "user":
            return Turn("user", content)
        case "assistant":
            return Turn("assistant", content)
    raise UsageError(f'Messages of the role "{message.role}" are not supported here.')


class Envelope:
    """What all parts of one answer have in common."""

    def __init__(self, model: str) -> None:
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }
        self._begun = False

    def whole(self, answer: str, thinking: str, finished: Finished) -> dict[str, Any]:
        """A reply in one piece."""
        message = {"role": "assistant", "content": answer}
        if thinking:
            message["reasoning_content"] = thinking
        choice = {"index": 0, "message": message, "finish_reason": _finish_reason(finished)}
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": _usage(finished),
        }

    def chunks(self, event: Event, *, usage: bool) -> Iterator[dict[str, Any]]:
        """A piece of a streamed reply, for what there is to say about ``event``."""
        if not self._begun:
            self._begun = True
            yield self._chunk({"role": "assistant", "content": ""})
        if isinstance(event, Chunk):
            name = "content" if event.part == "answer" else "reasoning_content"
            yield self._chunk({name: event.text})
        elif isinstance(event, Finished):
            yield self._chunk({}, _finish_reason(event))
            if usage:
                yield {**self._chunk({}), "choices": [], "usage": _usage(event)}

    def _chunk(self, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}


def _finish_reason(finished: Finished) -> str:
    return "length" if finished.reason == "length" else "stop"


def _usage(finished: Finished) -> dict[str, Any]:
    done = finished.statistics
    return {
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.generated_tokens,
        "total_tokens": done.prompt_tokens + done.generated_tokens,
        "prompt_tokens_details": {"cached_tokens": done.reused_tokens},
    }
