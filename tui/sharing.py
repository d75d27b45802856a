"""Asks, once for each server, whether memories may be sent to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ondevice.chats import Said
from ondevice.errors import OndeviceError
from tui.screens.dialogs import ChoiceScreen

if TYPE_CHECKING:
    from tui.widgets.conversation import Conversation


@runtime_checkable
class SettingsKeeper(Protocol):
    """A screen that can change a setting."""

    def set(self, key: str, value: str, *, quiet: bool = False) -> None:
        """Write it down, for this chat and later ones."""


async def sent_if_agreed(conversation: Conversation, said: Said) -> Said:
    """Let the memories that were withheld go with the message, if the user agrees to that.

    The answer is kept in the settings; Esc is no for this time.
    """
    screen = conversation.screen
    assert isinstance(screen, SettingsKeeper)
    count = len(said.withheld)
    them, they = ("One memory", "it") if count == 1 else (f"{count} memories", "them")
    question = (
        f"{them} could help answer this. Send {they} to {said.server}, and later any others that "
        "help? You can change this in /settings."
    )
    answers = ("No, never to this server", "Send memories to this server")
    chosen = await screen.app.push_screen_wait(ChoiceScreen(question, *answers))
    if chosen is None:
        return said
    screen.set(f"send_memories.{said.server}", "true" if chosen else "false", quiet=True)
    if not chosen:
        return said
    try:
        return await asyncio.to_thread(conversation.store.send, said)
    except OndeviceError as error:
        screen.notify(str(error), severity="error")
        return said
