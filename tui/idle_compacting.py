"""Has the model sum up the oldest messages of a long chat while the user does nothing."""

from __future__ import annotations

from collections.abc import Callable

from ondevice import chats
from ondevice.engine import EngineLike
from ondevice.errors import OndeviceError
from ondevice.messages import Loaded
from tui.idle_learning import on_battery
from tui.shared_engine import SharedEngine
from tui.widgets.conversation import Conversation


class Compacting:
    """Goes on until nothing is due or somebody wants the engine."""

    def __init__(self, engine: SharedEngine) -> None:
        self._engine = engine
        self._failed: Loaded | None = None
        """The model that could not do it."""

    async def run(self, conversation: Conversation) -> None:
        """Sum up what is due, and have the model read what then stands in the prompt.

        Does nothing while the engine is busy, with a model that is not fit for it, or on battery.
        """
        loaded = self._engine.loaded
        if loaded is self._failed or not chats.can_learn(loaded) or on_battery():
            return
        try:
            await compact(self._engine, conversation)
        except OndeviceError:  # nobody has asked for it, so nobody needs to know
            self._failed = loaded


async def compact(
    engine: SharedEngine, conversation: Conversation, *, now: bool = False
) -> int | None:
    """How many messages have come to be summed up; None: none, though some are due.

    Raises what the engine and the store raise.
    """
    store, id_ = conversation.store, conversation.id_in_store
    done, more = 0, None
    while id_ is not None and (
        more := await engine.aside(_one(store, id_, begun=done > 0, now=now))
    ):
        done += more
        conversation.follow()
    if done and id_ is not None:
        await engine.aside(lambda engine: chats.restore_cache(store, engine, id_))
        conversation.measure(anew=True)
    return done or more


def _one(
    store: chats.Chats, id_: int, *, begun: bool, now: bool
) -> Callable[[EngineLike], int | None]:
    return lambda engine: chats.compact(store, engine, id_, begun=begun, now=now)
