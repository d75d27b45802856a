"""The part of OpenAI's HTTP protocol that is spoken here: what requests mean, what answers hold.

https://platform.openai.com/docs/api-reference/chat. What a client asks for and cannot have is
refused, not passed over.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ondevice.config import Settings
from ondevice.messages import Chunk, Event, Finished, Generate, Turn
from ondevice.server._errors import WrongField

_SEEDS = 2**32 - 1
_MOST = 2**31 - 1  # that a number of tokens can be


class RequestPart(msgspec.Struct, frozen=True):
    """A piece of a message."""

    type: str
    text: str = ""


class RequestMessage(msgspec.Struct, frozen=True):
    role: str
    content: str | list[RequestPart] | None = None
    # These are known only to be refused.
    tool_calls: Any = None
    function_call: Any = None


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class JsonSchema(msgspec.Struct, frozen=True):
    schema: dict[str, Any] = {}


class ResponseFormat(msgspec.Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None


class TemplateOptions(msgspec.Struct, frozen=True):
    """What vLLM and llama-server pass on to the chat template."""

    enable_thinking: bool | None = None


class ChatRequest(msgspec.Struct, frozen=True):
    """The body of ``POST /v1/chat/completions``; fields not named here are passed over."""

    messages: Annotated[list[RequestMessage], Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=_MOST)] | None = None  # -1, as vLLM has it: all
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None  # as vLLM calls it
    seed: int | None = None
    max_tokens: Annotated[int, Meta(ge=-1, le=_MOST)] | None = None  # -1: no limit
    max_completion_tokens: Annotated[int, Meta(ge=-1, le=_MOST)] | None = None
    stop: str | list[str] | None = None
    response_format: ResponseFormat | None = None
    grammar: str | None = None  # GBNF, as llama-server takes it
    chat_template_kwargs: TemplateOptions | None = None
    reasoning_effort: str | None = None
    thinking_budget_tokens: Annotated[int, Meta(ge=-1, le=_MOST)] | None = None  # llama-server
    thinking_token_budget: Annotated[int, Meta(ge=-1, le=_MOST)] | None = None  # as vLLM calls it
    # These are known only to be refused, where they ask for anything.
    n: Annotated[int, Meta(ge=1)] | None = None
    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    audio: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    logit_bias: Any = None
    frequency_penalty: Any = None
    presence_penalty: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    web_search_options: Any = None

    def generate(self, defaults: Settings) -> Generate:
        """What the engine is asked, ``defaults`` where nothing else is asked for.

        Raises :class:`WrongField` for what it cannot do.
        """
        for name, harmless in _REFUSED.items():
            if (value := getattr(self, name)) and value not in harmless:
                why = _WHY.get(name, "is not supported here")
                raise WrongField(f'"{name}" {why}. Leave it out.', name, "unsupported_parameter")
        if self.grammar is not None and self._schema() is not None:
            raise WrongField('Give "grammar" or "response_format", not both.', "grammar")
        given = {
            name: value
            for name in ("temperature", "top_p", "top_k", "min_p", "repeat_penalty")
            if (value := getattr(self, name)) is not None
        }
        if self.repetition_penalty is not None:
            given.setdefault("repeat_penalty", self.repetition_penalty)
        if self.top_k == -1:
            given["top_k"] = 0
        if self.seed is not None:
            given["seed"] = None if self.seed == -1 else self.seed % _SEEDS
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Generate(
            turns=_turns(self.messages),
            sampling=msgspec.structs.replace(defaults.sampling, **given),
            max_tokens=self._most_tokens,
            stop=stop,
            grammar=self.grammar,
            json_schema=self._schema(),
            thinking=defaults.thinks if self._thinking is None else self._thinking,
            thinking_tokens=self._thinking_tokens(defaults),
            whole=True,
        )

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with what the reply took."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def _thinking(self) -> bool | None:
        if (options := self.chat_template_kwargs) and options.enable_thinking is not None:
            return options.enable_thinking
        return self.reasoning_effort != "none" if self.reasoning_effort else None

    @property
    def _most_tokens(self) -> int | None:
        for name in ("max_completion_tokens", "max_tokens"):
            most: int | None = getattr(self, name)
            if most == 0:
                raise WrongField(
                    f"{name} must be at least 1, or -1 for no limit.", name, "invalid_value"
                )
            if most is not None:
                return most if most > 0 else None
        return None

    def _thinking_tokens(self, defaults: Settings) -> int | None:
        asked = self.thinking_budget_tokens
        if asked is None:
            asked = self.thinking_token_budget
        if asked is None:
            return defaults.thinking_tokens
        return asked if asked >= 0 else None  # -1: no limit

    def _schema(self) -> str | None:
        match self.response_format:
            case ResponseFormat(type="json_object"):
                return '{"type": "object"}'
            case ResponseFormat(type="json_schema", json_schema=wanted):
                if wanted is None:
                    raise WrongField(
                        '"response_format" has no "json_schema".',
                        "response_format.json_schema",
                        "missing_required_parameter",
                    )
                try:
                    return json.dumps(wanted.schema)
                except RecursionError as error:
                    raise WrongField(
                        "The JSON schema is nested too deeply.", "response_format.json_schema"
                    ) from error
        return None


#: Field → values with which it asks for nothing; anything false asks for nothing either.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "tools": (),
    "tool_choice": ("none", "auto"),
    "functions": (),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "logprobs": (),
    "top_logprobs": (),
    "logit_bias": (),
    "frequency_penalty": (),
    "presence_penalty": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "web_search_options": (),
}


#: What there is to say of them besides that they are not supported.
_WHY = {
    "n": "can only be 1 here: a request gets one answer",
    "tools": "is not supported here: models do not call tools through this server, "
    'but "response_format" takes a JSON schema',
}


class EmbeddingsRequest(msgspec.Struct, frozen=True):
    """The body of ``POST /v1/embeddings``."""

    input: str | list[Any]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Any = None  # known only to be refused

    def texts(self) -> tuple[str, ...]:
        """What to embed. Raises :class:`WrongField` for anything but texts."""
        if self.dimensions:
            raise WrongField(
                '"dimensions" is not supported here. Leave it out.',
                "dimensions",
                "unsupported_parameter",
            )
        texts = (self.input,) if isinstance(self.input, str) else tuple(self.input)
        if not texts:
            raise WrongField('"input" is empty.', "input")
        if not all(isinstance(text, str) for text in texts):
            raise WrongField(
                '"input" must be a text or a list of texts; tokens of another model '
                "mean nothing to this one. (LangChain: check_embedding_ctx_length=False.)",
                "input",
            )
        return texts


def _turns(messages: list[RequestMessage]) -> tuple[Turn, ...]:
    turns = [_turn(message, f"messages[{at}]") for at, message in enumerate(messages)]
    if all(turn.role == "system" for turn in turns):  # an instruction alone is to be followed
        turns[-1] = Turn("user", turns[-1].content)
    return tuple(turns)


def _turn(message: RequestMessage, place: str) -> Turn:
    if message.tool_calls or message.function_call:
        raise WrongField("Tool calls are not supported here. Leave them out.", place)
    match message.role:
        case "system" | "developer":
            return Turn("system", _content(message, place))
        case "user":
            return Turn("user", _content(message, place))
        case "assistant":
            return Turn("assistant", _content(message, place))
    raise WrongField(
        f'Messages with the role "{message.role}" are not supported here.', f"{place}.role"
    )


def _content(message: RequestMessage, place: str) -> str:
    place = f"{place}.content"
    if message.content is None and message.role != "assistant":
        raise WrongField(f"{place} is missing.", place, "missing_required_parameter")
    if not isinstance(message.content, list):
        return message.content or ""
    if other := next((part.type for part in message.content if part.type != "text"), None):
        raise WrongField(f'A message has a part of type "{other}". Only text is supported.', place)
    return "".join(part.text for part in message.content)


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
        # As OpenAI documents it: where the usage is asked for, each piece before the last has none.
        none_yet = {"usage": None} if usage else {}
        if not self._begun:
            self._begun = True
            yield self._chunk({"role": "assistant", "content": ""}) | none_yet
        if isinstance(event, Chunk):
            name = "content" if event.part == "answer" else "reasoning_content"
            yield self._chunk({name: event.text}) | none_yet
        elif isinstance(event, Finished):
            yield self._chunk({}, _finish_reason(event)) | none_yet
            if usage:
                yield self._chunk({}) | {"choices": [], "usage": _usage(event)}

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
