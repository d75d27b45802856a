"""Turns a conversation into tokens with the model's own chat template.

The template is Jinja from a file of unknown origin, so it runs in a sandbox. What users and models
wrote is data: where it spells a control token, it is cut there before it is tokenized, so that it
stays plain text however the template treats it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ondevice.engine.messages import Turn
from ondevice.errors import ModelFileError
from ondevice.llama._model import Model

#: For models without a template of their own; llama.cpp's choice as well.
CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

#: Marks a cut in the rendered text; Unicode promises that no text contains it.
_CUT = "\ufdd0"


class _Refused(jinja2.TemplateError):
    """The template does not take this conversation."""


def _refuse(message: str) -> NoReturn:
    raise _Refused(message)


class ChatTemplate:
    """The chat template of ``model``, or ChatML.

    Raises :class:`ModelFileError` when the template cannot be parsed.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: (
            datetime.now().astimezone().strftime(form)
        )
        environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "sort_keys": False}
        try:
            self._template = environment.from_string(model.chat_template or CHATML)
        except jinja2.TemplateError as error:
            raise ModelFileError(
                f"The chat template of {model.path.name} cannot be parsed: {error}. "
                "Look for a newer file of this model."
            ) from error
        self._inert = lru_cache(maxsize=256)(self._cut_control_tokens)

    def render(self, turns: Sequence[Turn], *, thinking: bool | None = None) -> str:
        """The prompt for the assistant's next message, control tokens spelled out, cuts marked.

        If the last turn is the assistant's, it is the beginning of that message.

        Raises :class:`ModelFileError` when the template fails.
        """
        messages = [{"role": t.role, "content": self._inert(t.content)} for t in turns]
        begun = messages.pop()["content"] if turns[-1].role == "assistant" else ""
        try:
            try:
                return self._render(messages, thinking) + begun
            except _Refused:
                # Some templates know no system role: its text then leads the first user message.
                return self._render(_system_in_user(messages), thinking) + begun
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise ModelFileError(
                f"The chat template of {self._model.path.name} failed: {error}. "
                "Look for a newer file of this model."
            ) from error

    def _render(self, messages: list[dict[str, str]], thinking: bool | None) -> str:
        variables: dict[str, Any] = {} if thinking is None else {"enable_thinking": thinking}
        return self._template.render(
            messages=messages,
            add_generation_prompt=True,
            bos_token=self._model.bos,
            eos_token=self._model.eos,
            **variables,
        )

    def tokenize(self, rendered: str, *, start: bool = True) -> list[int]:
        """Token ids of what :meth:`render` gave, or of its tail if not ``start``."""
        tokens: list[int] = []
        bos = self._model.bos
        for number, piece in enumerate(rendered.split(_CUT)):
            first = start and number == 0
            tokens += self._model.tokenize(
                piece,
                add_special=first and not (bos and piece.startswith(bos)),
                parse_special=True,
            )
        return tokens

    def _cut_control_tokens(self, content: str) -> str:
        """``content`` with a cut inside each text that would be read as a control token."""
        content = content.replace(_CUT, "")
        while True:
            pieces = content.split(_CUT)
            tokens = [t for p in pieces for t in self._model.tokenize(p, parse_special=True)]
            controls = {t for t in tokens if self._model.is_control(t)}
            if not controls:
                return content
            for token in controls:
                text = self._model.text([token], special=True)
                cut = text[:1] + _CUT + text[1:] if len(text) > 1 else ""
                content = content.replace(text, cut)


def _system_in_user(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    if not messages or messages[0]["role"] != "system":
        return messages
    system, *rest = messages
    for number, message in enumerate(rest):
        if message["role"] == "user":
            joined = f"{system['content']}\n\n{message['content']}"
            return [*rest[:number], {"role": "user", "content": joined}, *rest[number + 1 :]]
    return rest
