"""Turns a conversation into tokens with the model's own chat template.

The template is Jinja from a file of unknown origin, so it runs in a sandbox with bounds. What users
and models wrote is data: where it spells a control token, it is cut there before it is tokenized,
so that it stays plain text however the template treats it.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, NoReturn

import jinja2

from ondevice.errors import ModelFileError
from ondevice.llama._bounded_jinja import BoundedEnvironment, Stopped, TooMuch
from ondevice.llama._model import Model, apply_named_template
from ondevice.markup import answer_opening, open_section
from ondevice.messages import Turn

__all__ = ["ChatTemplate", "Stopped"]

#: For models without a template of their own whose vocabulary has its tokens.
CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_CHATML_TOKENS = frozenset({"<|im_start|>", "<|im_end|>"})

#: For models that have neither, mostly such as only go on with a text: a talk written down.
PLAIN = (
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content }}\n\n"
    "{% else %}{{ message.role | capitalize }}: {{ message.content }}\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
PLAIN_STOPS = ("\nUser:", "\nuser:", "\nAssistant:")

#: Marks a cut in the rendered text; Unicode promises that no text contains it.
_CUT = "\ufdd0"

_LONGEST_SPELLING = 64  # characters: the beginning of a longer one is as good to find it
_CACHED = 1_000_000  # tokens of texts that were tokenized lately

# Long texts are tokenized in pieces, since tokenizers take ever longer for longer ones.
_PIECE = 2_000  # characters: shorter ones stay whole
_LONGEST_PIECE = 16_000  # characters: longer ones are broken, at a line or space if there is one
_LINE = re.compile(r"(?<=\S\n)(?=[A-Za-z])")
_WORD = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])")

#: What Hugging Face's library gives where there are no tools, and what templates want that are
#: made for tools only.
_NO_TOOLS: dict[str, Any] = {"tools": None, "documents": None}
_IN_TOOL_TEMPLATES: dict[str, Any] = {"tools": [], "documents": [], "functions": "[]"}

_Messages = list[dict[str, Any]]
_FAILURES = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    MemoryError,
)


class _TemplateRefused(jinja2.TemplateError):
    """The template does not take this conversation."""


def _refuse(message: str = "") -> NoReturn:
    raise _TemplateRefused(message)


class ChatTemplate:
    """The chat template of ``model``; without one, ChatML if the model knows it, or plain text.

    Raises :class:`ModelFileError` when the template cannot be parsed.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._environment = BoundedEnvironment()
        self._environment.globals["raise_exception"] = _refuse
        self._environment.globals["strftime_now"] = _now
        self._template: jinja2.Template | None = None
        self._wants_tools = False  # it cannot do without a list of them
        #: Strings that end a reply beside the tokens that do.
        self.stops: tuple[str, ...] = ()
        source = (model.chat_template or "").strip("\0")
        if not source.strip():
            chatml = self._spellings >= _CHATML_TOKENS
            source = CHATML if chatml else PLAIN
            self.stops = () if chatml else PLAIN_STOPS
        self._source = source
        if not re.search(r"\{[{%#]", source):
            # Older files have llama.cpp's name of a template in its place.
            if apply_named_template(source.strip(), [("user", "")]) is None:
                raise ModelFileError(
                    f"The chat template of {model.path.name} is {source.strip()[:40]!r}, "
                    "which is unknown. Look for a newer file of this model."
                )
        else:
            self._template = self._compile(source)
        self._inert = lru_cache(maxsize=256)(self._cut_control_tokens)
        self._tokens: dict[tuple[str, bool], array[int]] = {}
        self._n_cached = 0

    def _compile(self, source: str) -> jinja2.Template:
        try:
            return self._environment.from_string(source)
        except TooMuch as error:
            raise self._failed("cannot be used", error) from error
        except (*_FAILURES, SyntaxError) as error:
            raise self._failed("cannot be parsed", error) from error

    def _failed(self, how: str, error: BaseException) -> ModelFileError:
        too_deep = isinstance(error, RecursionError | MemoryError)
        why = "it is nested too deeply" if too_deep else str(error)
        return ModelFileError(
            f"The chat template of {self._model.path.name} {how}: "
            f"{why[:300].strip().removesuffix('.') or type(error).__name__}. "
            "Look for a newer file of this model."
        )

    # -------------------------------------------------------------------- rendering

    def render(
        self,
        turns: Sequence[Turn],
        *,
        thinking: bool | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> str:
        """The prompt for the assistant's next message, control tokens spelled out, cuts marked.

        If the last turn is the assistant's, it is the beginning of that message. ``stop`` is asked
        now and then.

        Raises :class:`ModelFileError` when the template fails, and :class:`Stopped`.
        """
        messages: _Messages = [{"role": t.role, "content": self._inert(t.content)} for t in turns]
        if turns[-1].role != "assistant":
            return self._rendered(messages, thinking, stop)
        begun: str = messages.pop()["content"]
        prompt = self._rendered(messages, thinking, stop)
        if open_section(prompt) and thinking is not False:
            # What was begun is the answer; some templates know how to leave the thinking out.
            without = self._rendered(messages, False, stop)
            prompt = prompt if open_section(without) else without
        return prompt + answer_opening(prompt, self._source) + begun

    def _rendered(
        self, messages: _Messages, thinking: bool | None, stop: Callable[[], bool]
    ) -> str:
        """Raises what :meth:`render` raises."""
        first_error: BaseException | None = None
        for fitted in self._fitted(messages):
            try:
                return self._run(fitted, thinking, stop)
            except TooMuch as error:
                raise self._failed("was stopped", error) from error
            except _FAILURES as error:
                first_error = first_error or error
        assert first_error is not None
        raise self._failed("failed", first_error) from first_error

    def _run(
        self,
        messages: _Messages,
        thinking: bool | None,
        stop: Callable[[], bool] = lambda: False,
        *,
        short: bool = False,
    ) -> str:
        if self._template is None:
            named = [(message["role"], message["content"]) for message in messages]
            rendered = apply_named_template(self._source.strip(), named)
            if rendered is None:
                raise _TemplateRefused("llama.cpp does not know it")
            return rendered
        variables: dict[str, Any] = {} if thinking is None else {"enable_thinking": thinking}
        if self._wants_tools:
            variables["datetime"] = _now("%Y-%m-%d")  # no time: prompts begin alike
        return self._environment.render(
            self._template,
            messages,
            stop,
            short=short,
            add_generation_prompt=True,
            bos_token=self._model.bos,
            eos_token=self._model.eos,
            **(_IN_TOOL_TEMPLATES if self._wants_tools else _NO_TOOLS),
            **variables,
        )

    # ------------------------------------------------- conversations as templates want them

    def _fitted(self, messages: _Messages) -> Iterator[_Messages]:
        """``messages`` in the forms to try, each taken if the template refuses the one before."""
        takes = self._takes
        fitted = messages
        if not takes.only_system and all(each["role"] == "system" for each in messages):
            fitted = [{**each, "role": "user"} for each in messages]
        if not takes.later_system:
            fitted = _fold_later_systems(fitted)
        if not takes.system:
            fitted = _system_in_user(fitted)
        if not takes.any_order:
            fitted = _alternating(fitted)
        yield fitted
        joined = _alternating(_fold_later_systems(messages))
        yield joined
        yield _alternating(_system_in_user(joined))

    @cached_property
    def _takes(self) -> _Takes:
        """What the template does with conversations that not all templates take."""
        asked = {"role": "user", "content": "0000"}
        answered = {"role": "assistant", "content": "0001"}
        system = {"role": "system", "content": "0002"}

        later = {"role": "system", "content": "0003"}
        if not self._shows(asked):
            self._wants_tools = True
            if not self._shows(asked):  # it fails with anything, and says why
                self._wants_tools = False
                return _Takes(True, True, True, True)
        return _Takes(
            system=self._shows(system, asked),
            only_system=self._shows(system),
            later_system=self._shows(system, asked, answered, later, asked)
            and self._shows(system, later, asked),
            any_order=self._shows(asked, asked) and self._shows(answered, asked),
        )

    def _shows(self, *messages: dict[str, Any]) -> bool:
        """Whether the template takes ``messages`` and leaves none out."""
        try:
            rendered = self._run([dict(message) for message in messages], None, short=True)
        except _FAILURES:
            return False
        return all(message["content"] in rendered for message in messages)

    # -------------------------------------------------------------------- tokenizing

    def tokenize(
        self,
        rendered: str,
        *,
        start: bool = True,
        plain: bool = False,
        limit: int | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[int]:
        """Token ids of what :meth:`render` gave, or of its tail if not ``start``.

        ``plain``: of a text that :meth:`render` may be given.

        Soon after ``limit`` tokens it ends: whoever sees that many knows that there are more.
        Raises :class:`Stopped`.
        """
        tokens: list[int] = []
        if plain:
            rendered = self._inert(rendered)
        bos = self._model.bos
        if start and not (bos and rendered.startswith(bos)):
            tokens += self._model.start_tokens
        for text, goes_on in self._pieces(rendered):
            if stop():
                raise Stopped
            tokens += self._tokenize(text, goes_on)
            if limit is not None and len(tokens) > limit:
                break
        return tokens

    def _tokenize(self, text: str, goes_on: bool) -> Iterable[int]:
        known = self._tokens.get((text, goes_on))
        if known is None:
            if goes_on:
                known = array("i", self._model.tokenize_on(text))
            else:
                known = array("i", self._model.tokenize(text, parse_special=True))
            self._n_cached += len(known) + 1
            if self._n_cached > _CACHED:
                self._tokens.clear()
                self._n_cached = len(known) + 1
            self._tokens[text, goes_on] = known
        return known

    def _pieces(self, rendered: str) -> Iterator[tuple[str, bool]]:
        """Texts that can be tokenized one by one, and whether each goes on with the one before.

        llama.cpp tokenizes what lies between control tokens by itself, too.
        """
        may_part = self._control is not None and not self._model.strips_around_tokens
        for number, piece in enumerate(rendered.split(_CUT)):
            goes_on, begin = number > 0, 0
            if may_part:
                assert self._control is not None
                for found in self._control.finditer(piece):
                    if found.start() >= begin + _PIECE:
                        yield from self._broken(piece[begin : found.start()], goes_on)
                        goes_on, begin = False, found.start()
            if begin < len(piece):
                yield from self._broken(piece[begin:], goes_on)

    def _broken(self, text: str, goes_on: bool) -> Iterator[tuple[str, bool]]:
        """``text`` in pieces that are not too long."""
        parts = [text]
        if len(text) > _PIECE and self._model.breaks_at_words:
            parts = _gathered(_LINE.split(text))
            parts = [
                each
                for part in parts
                for each in (_gathered(_WORD.split(part)) if len(part) > 2 * _PIECE else [part])
            ]
            parts = [each for part in parts for each in _runs_apart(part)]
        for part in parts:
            at = 0
            while at < len(part):
                end = at + _LONGEST_PIECE
                if end < len(part):
                    half = end - _LONGEST_PIECE // 2
                    line, word = part.rfind("\n", half, end) + 1, part.rfind(" ", half, end)
                    end = line or (word if word > 0 else end)
                yield part[at:end], goes_on
                goes_on, at = True, end

    # -------------------------------------------------------------------- text as data

    @cached_property
    def _spellings(self) -> frozenset[str]:
        spellings: frozenset[str] = getattr(self._model, "control_spellings", frozenset())
        return spellings

    @cached_property
    def _single_characters(self) -> list[str]:
        return [text for text in self._spellings if len(text) == 1]

    @cached_property
    def _control(self) -> re.Pattern[str] | None:
        """Finds the texts of control tokens, the longest first."""
        if not self._spellings:
            return None
        return re.compile(_any_of(text[:_LONGEST_SPELLING] for text in self._spellings), re.DOTALL)

    @cached_property
    def _control_begins(self) -> re.Pattern[str] | None:
        """Finds each character with which the text of a control token begins."""
        control = self._control
        return control and re.compile(f"(?={control.pattern})(.)", re.DOTALL)

    def _cut_control_tokens(self, content: str) -> str:
        """``content`` with a cut inside each text that would be read as a control token."""
        content = content.replace(_CUT, "")
        if self._control_begins is None:
            return content
        for single in self._single_characters:
            content = content.replace(single, "")  # there is nothing to cut
        return self._control_begins.sub(rf"\1{_CUT}", content)


class _Takes(NamedTuple):
    """What a template takes and shows."""

    system: bool  # a system message at the beginning
    only_system: bool  # and nothing else
    later_system: bool  # one that is not the first
    any_order: bool  # of roles


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form[:100])


def _any_of(texts: Iterable[str]) -> str:
    """A regular expression for any of ``texts``, the longest that matches."""
    by_first: dict[str, set[str]] = {}
    for text in texts:
        by_first.setdefault(text[:1], set()).add(text[1:])
    ends = "" in by_first
    by_first.pop("", None)
    choices = [
        re.escape(first) + (_any_of(rest) if len(rest) > 1 else re.escape(next(iter(rest))))
        for first, rest in sorted(by_first.items())
    ]
    return f"(?:{'|'.join(choices)})" + ("?" if ends else "")


def _gathered(parts: Iterable[str]) -> list[str]:
    """The same text in fewer parts, of about ``_PIECE`` characters."""
    gathered: list[str] = []
    for part in parts:
        if gathered and len(gathered[-1]) + len(part) <= _PIECE:
            gathered[-1] += part
        else:
            gathered.append(part)
    return gathered


def _runs_apart(text: str) -> Iterator[str]:
    """``text``, long runs of one character apart and in pieces: worst for tokenizers."""
    if len(text) <= 2 * _PIECE:
        yield text
        return
    at = 0
    for run in re.finditer(r"(.)\1{511}", text, re.DOTALL):
        if run.start() > at:
            yield text[at : run.start()]
        yield run[0]
        at = run.end()
    if at < len(text):
        yield text[at:]


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return {**second, "content": f"{first['content']}\n\n{second['content']}"}


def _fold_later_systems(messages: _Messages) -> _Messages:
    """System messages at the beginning as one, those after it in the next user's message."""
    folded: _Messages = []
    waiting: dict[str, Any] | None = None  # a system message without its user's message
    for message in messages:
        if message["role"] == "system":
            if all(earlier["role"] == "system" for earlier in folded):
                folded = [_joined(folded[0], message) if folded else message]
            else:
                waiting = _joined(waiting, message) if waiting else message
        elif waiting and message["role"] == "user":
            folded.append({**message, "content": _joined(waiting, message)["content"]})
            waiting = None
        else:
            if waiting:
                folded.append({**waiting, "role": "user"})
                waiting = None
            folded.append(message)
    return [*folded, {**waiting, "role": "user"}] if waiting else folded


def _system_in_user(messages: _Messages) -> _Messages:
    """The system message in the first user's message."""
    if not messages or messages[0]["role"] != "system":
        return messages
    system, *rest = messages
    for number, message in enumerate(rest):
        if message["role"] == "user":
            return [*rest[:number], _joined(system, message), *rest[number + 1 :]]
    return [{**system, "role": "user"}, *rest]


def _alternating(messages: _Messages) -> _Messages:
    """Messages of one role after another joined, a user's first."""
    joined: _Messages = []
    for message in messages:
        if joined and joined[-1]["role"] == message["role"]:
            joined[-1] = _joined(joined[-1], message)
            continue
        if message["role"] == "assistant" and (not joined or joined[-1]["role"] == "system"):
            joined.append({"role": "user", "content": "…"})
        joined.append(message)
    return joined
