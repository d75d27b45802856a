"""Has the model read what was typed for facts while the user does nothing."""

from __future__ import annotations

from ondevice import chats
from ondevice.errors import OndeviceError
from ondevice.messages import Loaded
from tui.shared_engine import SharedEngine
from tui.widgets.conversation import Conversation


class Learning:
    """Reads text by text until nothing is left or somebody wants the engine."""

    def __init__(self, engine: SharedEngine, store: chats.Chats) -> None:
        self._engine = engine
        self._store = store
        self._failed: Loaded | None = None
        """The model that could not do it."""

    async def run(self, conversation: Conversation) -> None:
        """Read all that is unread, then have the model see ``conversation`` again.

        Without the last, the next message would have to wait until all of it is computed anew.
        Does nothing while the engine is busy, with a model that is not fit for it, or on battery.
        """
        loaded = self._engine.loaded
        if loaded is self._failed or not chats.can_learn(loaded) or on_battery():
            return
        store, id_ = conversation.store, conversation.id_in_store
        has_read = False
        try:
            while more := await self._engine.aside(lambda e: chats.learn(self._store, e)):
                has_read = True
            if has_read and more is not None and id_ is not None:
                await self._engine.aside(lambda e: chats.restore_cache(store, e, id_))
        except OndeviceError:  # nobody has asked for it, so nobody needs to know
            self._failed = loaded


def on_battery() -> bool:
    """Whether the machine has no other power."""
    import psutil  # noqa: PLC0415 - a faster start

    sensor = getattr(psutil, "sensors_battery", lambda: None)  # not on every system
    battery = sensor()
    return battery is not None and battery.power_plugged is False
