"""Sees that a message fits the model's context before it is sent, and asks what to do if not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec
from msgspec.structs import replace
from textual.app import App

from ondevice.chats import Attachment, fitting, with_attachments
from ondevice.engine import EngineLike
from ondevice.errors import OndeviceError
from ondevice.messages import Turn
from tui.attachments import PARTS, whole_name
from tui.screens.dialogs import ChoiceScreen
from tui.shared_engine import SharedEngine

_SURELY = 2  # times as many bytes as it may have tokens
_USUAL = 4096  # tokens of a context: what is short is kept at once, also while a model loads
_FRAME = 600  # bytes: more than any template puts around a message


class Draft(msgspec.Struct, frozen=True):
    """A message that is about to be sent; ``system`` is the conversation's system prompt."""

    system: str
    text: str
    attachments: tuple[Attachment, ...]
    room: int | None = None
    """Tokens that may be added to it; None: enough, or not known."""

    @property
    def texts(self) -> list[str]:
        """What can be shortened of it."""
        return [attachment.content for attachment in self.attachments] or [self.text]

    def frame(self, texts: Sequence[str]) -> list[Turn]:
        """What the model is to see at the least, with ``texts`` in place of its own."""
        system = [Turn("system", self.system)] if self.system else []
        return [*system, Turn("user", self._with(texts).prompt())]

    def shortened(self, texts: Sequence[str], how: fitting.How) -> Draft:
        """With ``texts`` in place of its own; what is empty is left out."""
        draft = self._with(texts)
        kept = [
            one if one.content == whole.content else named(one, how)
            for one, whole in zip(draft.attachments, self.attachments, strict=True)
            if one.content
        ]
        return replace(draft, attachments=tuple(kept))

    def prompt(self) -> str:
        """What the model is to see of it, but for memories."""
        return with_attachments(self.text, self.attachments)

    def _with(self, texts: Sequence[str]) -> Draft:
        if not self.attachments:
            return replace(self, text=texts[0])
        pairs = zip(self.attachments, texts, strict=True)
        return replace(self, attachments=tuple(Attachment(a.name, text) for a, text in pairs))


def named(attachment: Attachment, how: fitting.How) -> Attachment:
    """A part of an attachment, which says so to the user and to the model."""
    return Attachment(f"{whole_name(attachment.name)} ({PARTS[how]})", attachment.content)


async def fitted(
    app: App[None], engine: SharedEngine, draft: Draft, *, beside: int
) -> Draft | None:
    """The message as it is to be sent, with ``beside`` tokens of memories; None: it is not.

    What fits is not changed. What does not fit is, as the user chooses. Whether a long one fits is
    told once no other reply is written; without a model the reply tells.
    """
    n_bytes = len((draft.system + draft.prompt()).encode("utf-8", "replace")) + _FRAME
    if n_bytes * _SURELY <= (engine.n_ctx or _USUAL):
        return draft
    try:
        size = await engine.ask(partial(_measured, draft=draft))
        if size.fits:
            return replace(draft, room=size.left if size.n_ctx else None)
        how = await _choice(app, draft, size, engine)
        if how is None:
            return None
    except OndeviceError:
        return draft  # what is wrong is told with the reply
    try:
        texts = await engine.ask(partial(_shortened, draft=draft, how=how, beside=beside))
    except OndeviceError as error:
        app.notify(str(error), severity="error")
        return None
    shorter = draft.shortened(texts, how)
    if not any(texts):
        app.notify(
            "Your message fills the context even without the files. Shorten it.",
            severity="error",
        )
        return None
    return replace(shorter, room=beside)


def _measured(engine: EngineLike, *, draft: Draft) -> fitting.Size:
    return fitting.measure(engine, draft.frame, draft.texts)


def _shortened(engine: EngineLike, *, draft: Draft, how: fitting.How, beside: int) -> list[str]:
    return fitting.shorten(engine, draft.frame, draft.texts, draft.text, how, beside=beside)


async def _choice(
    app: App[None], draft: Draft, size: fitting.Size, engine: SharedEngine
) -> fitting.How | None:
    loaded = engine.loaded
    most = max(size.n_ctx, loaded.n_ctx_train if loaded else 0)
    needed = f"more than {most:,}" if size.tokens >= most else f"{size.tokens:,}"
    question = (
        f"This is too long for the model: it needs {needed} tokens, and the context has "
        f"room for {size.n_ctx:,}, including the reply. Nothing was sent."
    )
    hows: list[fitting.How] = ["beginning"]
    answers = ["Send as much of the beginning as fits"]
    if draft.attachments:
        hows.insert(0, "relevant")
        answers.insert(0, "Send the parts most relevant to the question")
    place = await app.push_screen_wait(
        ChoiceScreen(question, *answers, "Send nothing and put it back into the prompt")
    )
    return None if place is None or place >= len(hows) else hows[place]
