"""The typed records that cross the pipe between the app and the engine process.

One line of JSON is a number and a record: ``[7,{"type":"Generate",…}]``. Requests are numbered
from 1 on; their answers, and what cancels them, carry their number; what comes unasked carries 0.
Weights and logits never cross. The first group is what the app asks, the second what the engine
answers; a generation's answer is a stream of events that ends with :class:`Finished` or
:class:`Failed`.

The types say what a field takes, ranges included. They are checked where a record comes out of
JSON, settings or flags, and by :func:`ondevice.checking.check`; not where Python makes one.
"""

from __future__ import annotations

import json
import os
import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ondevice.errors import UsageError

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "cancelled"]
Preference = Literal["speed", "balanced", "exact"]
URL_SCHEMES = ("http://", "https://")
_LOGIN = re.compile(r"\A(https?://)[^/?#]*@")  # the user, and maybe a password, before the host

KVType = Literal["f16", "q8_0", "q4_0"]
Switch = Literal["on", "off"]

_INT32 = 2**31 - 1
ContextTokens = Annotated[int, Meta(ge=16, le=_INT32)]
ThinkingTokens = Annotated[int, Meta(ge=0, le=_INT32)]
Threads = Annotated[int, Meta(ge=1, le=512)]  # ggml takes no more


def without_password(name: str) -> str:
    """The name of a model as it may be shown: of a server's address, without who logs in there."""
    return _LOGIN.sub(r"\1", name)


def server_of(path: str) -> str | None:
    """The server that a model's path names, such as “host:8080”; None: it is on this device."""
    if not path.startswith(URL_SCHEMES):
        return None
    host = without_password(path).partition("://")[2]
    return re.split(r"[/?#]", host, maxsplit=1)[0].lower()


class Record(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of all records; the JSON key ``type`` names the class."""


class Turn(msgspec.Struct, frozen=True):
    """One message of a conversation. ``content`` is data: template tokens in it stay plain text."""

    role: Role
    content: str
    #: Characters that other conversations may begin with as well, such as an attached file's.
    shared: Annotated[int, Meta(ge=0)] = 0
    #: At the beginning of a conversation: it is not left out with the oldest messages, unless there
    #: would be no room for the last one. A system prompt stays anyway.
    stays: bool = False


class Sampling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the next token is chosen.

    ``temperature`` 0 is greedy. ``seed`` None draws a fresh one, which the statistics report.
    ``top_k`` 0, ``top_p`` 1, ``min_p`` 0 and ``repeat_penalty`` 1 switch a step off.
    """

    temperature: Annotated[float, Meta(ge=0, le=100)] = 0.6
    top_k: Annotated[int, Meta(ge=0, le=_INT32)] = 40
    top_p: Annotated[float, Meta(ge=0, le=1)] = 0.95
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.05
    repeat_penalty: Annotated[float, Meta(gt=0, le=100)] = 1.0
    #: Tokens that the repetition penalty looks back on.
    repeat_last_n: Annotated[int, Meta(ge=0, le=_INT32)] = 64
    seed: Annotated[int, Meta(ge=0, le=2**32 - 2)] | None = None


# ------------------------------------------------------------------ the app asks


class Load(Record, frozen=True, kw_only=True):
    """Load a model, in place of the one loaded before."""

    #: The GGUF file, the first part of a split one; or a server's URL. A ``Path`` does as well.
    path: str
    n_ctx: ContextTokens | None = None  # None: at most 4096, what fits well
    kv_type: KVType | None = None  # None: f16 unless room is short
    #: Of what is kept of conversations, which is of no use to another: preferred while room is
    #: short.
    kv_type_before: KVType | None = None
    prefer: Preference = "balanced"  # when not everything can be had
    n_threads: Threads | None = None  # None: the physical cores that may be used
    #: Bytes that may be used at most; None: what is available.
    ram: Annotated[int, Meta(ge=1, le=2**60)] | None = None
    drafter: str | None = None  # a smaller GGUF file of the same vocabulary, to draft for a window
    predicts: bool = True  # may draft with a prediction block of its own, if there is no drafter

    def __post_init__(self) -> None:
        for name in ("path", "drafter"):
            path: object = getattr(self, name)
            if isinstance(path, os.PathLike):
                msgspec.structs.force_setattr(self, name, os.fspath(path))

    @property
    def is_remote(self) -> bool:
        """Whether the model is on a server."""
        return self.path.startswith(URL_SCHEMES)


class StateKey(msgspec.Struct, frozen=True):
    """A folder of files with what has been computed of conversations, and what decrypts them."""

    name: str  # of the folder
    secret: bytes  # 32 of them, for AES-GCM

    def __repr__(self) -> str:
        return f"StateKey({self.name!r})"


class Keep(msgspec.Struct, frozen=True, kw_only=True):
    """Where what is computed of a conversation is kept, so that it need not be read again."""

    folder: str  # of all of these
    own: StateKey  # for this conversation
    shared: StateKey  # for what others may begin with as well: see :attr:`Turn.shared`
    most_bytes: int  # of all files together


class Generate(Record, frozen=True, kw_only=True):
    """Continue a conversation with the assistant's next message."""

    turns: tuple[Turn, ...]
    sampling: Sampling = Sampling()
    #: None: until the model stops or the context is full.
    max_tokens: Annotated[int, Meta(ge=1, le=_INT32)] | None = None
    stop: tuple[str, ...] = ()  # the reply ends before the first of these strings
    grammar: str | None = None  # GBNF; excludes ``json_schema``
    #: JSON text of a schema, or the schema itself; excludes ``grammar``.
    json_schema: str | None = None
    thinking: bool | None = None  # None: the template's default, for models that can think or not
    #: After so many tokens of thinking the answer begins, at the end of a word; None: no limit.
    thinking_tokens: ThinkingTokens | None = None
    whole: bool = False  # too long a conversation is refused; else its oldest messages are left out
    keep: Keep | None = None  # what is computed of it; None: in RAM at most

    def __post_init__(self) -> None:
        schema: object = self.json_schema
        if isinstance(schema, dict):
            try:
                text = json.dumps(schema)
            except (TypeError, ValueError, RecursionError) as error:
                raise UsageError(f"The schema cannot be written as JSON: {error}.") from error
            msgspec.structs.force_setattr(self, "json_schema", text)
        if schema is not None and self.grammar is not None:
            raise UsageError("Give a grammar or a JSON schema, not both.")


class Aside(Generate, frozen=True, kw_only=True, tag="Generate"):
    """A request that the app makes for itself, such as for a title; no reply to the user.

    Engines treat it as any :class:`Generate`, and it crosses the pipe as one.
    """


class Embed(Record, frozen=True, kw_only=True):
    """Turn texts into vectors that are close where the texts mean much the same."""

    texts: tuple[str, ...]  # of at most 512 tokens each


class Measure(Record, frozen=True, kw_only=True):
    """Count the tokens of what might be asked, and of texts, before anything is computed."""

    turns: tuple[Turn, ...] = ()  # a conversation, to be read as :class:`Generate` would have it
    texts: tuple[str, ...] = ()
    grow: bool = True  # the context, if the last message needs it
    #: Where what was computed of ``turns`` is kept: it is made ready, since they may soon go on.
    keep: Keep | None = None


class Resize(Record, frozen=True, kw_only=True):
    """Have the weights take another amount of RAM, also while a reply is under way."""

    #: Bytes; None: as much as there is room for, which changes with time.
    budget: Annotated[int, Meta(ge=0, le=2**60)] | None


class Cancel(Record, frozen=True, kw_only=True):
    """Stop what is under way."""


class AnswerNow(Record, frozen=True, kw_only=True):
    """End the thinking of the reply that is under way, so that its answer begins."""


class Shutdown(Record, frozen=True, kw_only=True):
    """End the engine process."""


# ---------------------------------------------------------------- the engine answers


class Loading(Record, frozen=True, kw_only=True):
    """Progress of a load."""

    fraction: float  # 0 … 1


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan expects."""

    peak_bytes: int  # RAM that the engine takes at most
    tokens_per_second: float
    first_token_s: float  # after a prompt of 512 tokens
    quality: float  # of 1: what is left of the unquantized model's


class Loaded(Record, frozen=True, kw_only=True):
    """The model is ready."""

    path: str
    name: str  # general.name of the file, or the file's name
    architecture: str  # llama.cpp's name, such as "qwen2"
    quantization: str  # such as "Q4_K - Medium"
    n_params: int
    n_layers: int
    n_ctx: int  # tokens, as allocated now
    n_ctx_train: int  # tokens
    weights_bytes: int
    kv_type: KVType = "f16"
    plan: str = ""  # how it is run, and why: a sentence or two
    expected: Expected | None = None  # None: nothing is known, as of a model on a server
    streamed_bytes: int = 0  # of these, not in RAM but read from the disk when they are needed
    kv_bytes: int  # KV cache as allocated
    compute_bytes: int  # compute and output buffers as allocated
    load_ms: float


def with_context(loaded: Loaded | None, answer: object) -> Loaded | None:
    """``loaded`` with the context that ``answer`` tells of: it grows with the conversation."""
    match answer:
        case PromptProgress() | Measured():
            n_ctx = answer.n_ctx
        case Finished():
            n_ctx = answer.statistics.n_ctx
        case _:
            return loaded
    if loaded is None or n_ctx in (0, loaded.n_ctx):
        return loaded
    return msgspec.structs.replace(loaded, n_ctx=n_ctx)


class Sizing(Record, frozen=True, kw_only=True):
    """How RAM is used now: comes unasked, with a load and each time that it has changed."""

    budget: int | None  # bytes for weights, as asked for last; None: what there is room for
    resident_bytes: int  # weights in RAM, buffers for the streamed ones included
    absent_bytes: int  # weights that are not: read when they are needed, or left out of a stack
    streamed_bytes: int = 0  # of these, those that are read
    least_bytes: int  # the smallest budget with which the model runs
    most_bytes: int  # the budget from which on more changes nothing; as above: it is fixed
    room_bytes: int  # what weights could take without disturbing other programs
    limit_bytes: int  # RAM of the machine, or the lowest limit below it
    limit_source: str  # such as "all RAM of this machine"
    predicts: bool = False  # the model's own prediction block is held, and drafts
    drafter_bytes: int = 0  # weights in RAM of a smaller model, that drafts
    n_blocks: int = 0  # of a stack, that it computes with
    total_blocks: int = 0  # of a stack
    experts_used: int = 0  # since the load, each once for a pass and block
    experts_found: int = 0  # of these, in RAM already


class PromptProgress(Record, frozen=True, kw_only=True):
    """How much of the new part of the prompt has been processed."""

    done: int  # tokens
    total: int  # tokens
    reused: int = 0  # tokens before these that were in the KV cache already
    n_ctx: int = 0  # tokens that the context holds now; 0: not known


class Notice(Record, frozen=True, kw_only=True):
    """Something the user should know about this reply, in a plain sentence."""

    text: str
    says_end: bool = False  # why the reply was cut short


class Chunk(Record, frozen=True, kw_only=True):
    """A piece of the reply."""

    text: str
    part: Literal["answer", "thinking"] = "answer"
    tokens: int = 1  # that it took, with those before it that made no text; of a server: about 1


class Streaming(msgspec.Struct, frozen=True, kw_only=True):
    """What was read from the disk for a reply of a model larger than RAM."""

    bytes_read: int = 0
    read_ms: float = 0.0  # in which the disk was busy for us
    wait_ms: float = 0.0  # in which the computing waited for it
    resident_bytes: int = 0  # weights in RAM, buffers for the streamed ones included
    drafted_tokens: int = 0  # proposed by the drafter
    accepted_tokens: int = 0  # of these, the model's own choice as well
    experts_used: int = 0  # each once for a pass and block; 0: the model has none on the disk
    experts_found: int = 0  # of these, in RAM already

    def since(self, earlier: Streaming) -> Streaming:
        """What was done between the two."""
        counted = {
            name: getattr(self, name) - getattr(earlier, name)
            for name in self.__struct_fields__
            if name != "resident_bytes"
        }
        return msgspec.structs.replace(self, **counted)


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a reply took."""

    prompt_tokens: int  # the whole prompt
    reused_tokens: int  # of these, already in the KV cache
    prompt_ms: float  # time to process the rest
    generated_tokens: int  # sampled, thinking and end-of-turn token included
    generated_ms: float  # from the first sampled token to the end
    context_tokens: int  # positions of the KV cache in use after the reply
    n_ctx: int
    peak_ram_bytes: int  # highest resident set of the engine process so far, page cache included
    seed: int  # that reproduces this reply
    streaming: Streaming | None = None  # None: all weights are in RAM
    #: Of the time in which the engine wanted a core, what it waited for one: others had it.
    waited_share: float = 0.0
    thinking_tokens: int = 0  # of the generated ones
    thinking_cut: bool = False  # whether it was ended so that the answer begins

    @property
    def prompt_per_second(self) -> float:
        """New prompt tokens per second."""
        done = self.prompt_tokens - self.reused_tokens
        return done / self.prompt_ms * 1e3 if self.prompt_ms > 0 else 0.0

    @property
    def generated_per_second(self) -> float:
        """Generated tokens per second, the first one (which the prompt paid for) left out."""
        done = self.generated_tokens - 1
        return done / self.generated_ms * 1e3 if done > 0 and self.generated_ms > 0 else 0.0


class Finished(Record, frozen=True, kw_only=True):
    """The reply is complete, or was cancelled."""

    reason: FinishReason
    statistics: Statistics


class Embedded(Record, frozen=True, kw_only=True):
    """A vector of length 1 for each text."""

    vectors: tuple[tuple[float, ...], ...]
    tokens: int  # of all texts


class Measured(Record, frozen=True, kw_only=True):
    """What :class:`Measure` asked."""

    tokens: int  # of the prompt; if it is longer than any context, only that it is
    n_ctx: int  # tokens that the context holds now; 0: not known, as of a server
    texts: tuple[int, ...] = ()  # tokens of each
    may_grow: bool = False  # there is room for a context of twice as many tokens


class Failed(Record, frozen=True, kw_only=True):
    """What was asked could not be done; the engine lives on."""

    error: str  # class name in ondevice.errors
    message: str


Request = Load | Generate | Embed | Measure | Resize | Cancel | AnswerNow | Shutdown
Event = PromptProgress | Notice | Chunk | Finished
Answer = Loading | Loaded | Sizing | Event | Embedded | Measured | Failed

UNASKED = 0  # the number of what answers no request

_encoder = msgspec.json.Encoder()
_request_decoder: msgspec.json.Decoder[tuple[int, Request]] = msgspec.json.Decoder(
    tuple[int, Request]
)
_answer_decoder: msgspec.json.Decoder[tuple[int, Answer]] = msgspec.json.Decoder(tuple[int, Answer])
_NUMBER = re.compile(rb"\[(\d{1,18}),")


class BrokenLine(Exception):
    """A line that holds no record. ``number`` is its request's, as far as that can be told."""

    def __init__(self, line: bytes, error: Exception) -> None:
        super().__init__(str(error))
        match = _NUMBER.match(line)
        self.number = int(match[1]) if match else UNASKED


def encode(record: Record, number: int = UNASKED) -> bytes:
    """One line of JSON, newline included."""
    return _encoder.encode((number, record)) + b"\n"


def decode_request(line: bytes) -> tuple[int, Request]:
    """The number and the record in ``line``. Raises :class:`BrokenLine` for anything else."""
    try:
        return _request_decoder.decode(line)
    except (msgspec.MsgspecError, UsageError, ValueError, RecursionError) as error:
        raise BrokenLine(line, error) from error


def decode_answer(line: bytes) -> tuple[int, Answer]:
    """The number and the record in ``line``. Raises :class:`BrokenLine` for anything else."""
    try:
        return _answer_decoder.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BrokenLine(line, error) from error
