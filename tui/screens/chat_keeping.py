"""What can be done with whole chats: begin, find, rename, pin, archive, delete, export, import."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

from textual import work

from ondevice.chats import Heading
from ondevice.errors import OndeviceError
from tui.background import in_thread
from tui.screens.chat_base import ChatBase
from tui.screens.dialogs import ChoiceScreen

_NAMED = 10  # of what an import left out


class ChatKeeping(ChatBase):
    async def action_new(self) -> None:
        await self.open(None)

    @work
    async def action_chats(self, words: str = "") -> None:
        from tui.screens.chats import ChatsScreen  # noqa: PLC0415 - a faster start

        screen = ChatsScreen(self.store, words)
        found = await self.app.push_screen_wait(screen)
        await self.look_at_store()
        if found is not None:
            await self.go_to(found.heading.id, found.message_id, words=screen.words)

    @work
    async def action_find(self, words: str = "") -> None:
        from tui.screens.chats import ChatsScreen  # noqa: PLC0415 - a faster start

        if (id_ := self.id_in_store) is not None:
            store = self.conversation.store
            screen = ChatsScreen(store, words, within=id_)
            found = await self.app.push_screen_wait(screen)
            if found is not None:
                await self.go_to(id_, found.message_id, store, screen.words)

    # ------------------------------------------------------------------ this one

    async def action_rename(self, title: str) -> None:
        if (id_ := self.id_in_store) is not None:
            await self._do(
                lambda: self.conversation.store.rename(id_, title), "The chat is renamed."
            )
            await self.look_at_store()

    async def action_pin(self) -> None:
        if heading := await self._heading():
            pinned = not heading.pinned
            done = "pinned" if pinned else "no longer pinned"
            await self._do(
                lambda: self.conversation.store.pin(heading.id, pinned), f"The chat is {done}."
            )

    async def action_archive(self) -> None:
        if heading := await self._heading():
            archived = not heading.archived
            done = "archived" if archived else "in the list again"
            await self._do(
                lambda: self.conversation.store.archive(heading.id, archived),
                f"The chat is {done}.",
            )

    @work
    async def action_delete(self) -> None:
        from tui.screens.chats import delete  # noqa: PLC0415 - a faster start

        heading = await self._heading()
        if heading and await delete(self, self.conversation.store, heading):
            await self.look_at_store()

    async def _heading(self) -> Heading | None:
        id_ = self.id_in_store
        return (
            None if id_ is None else await asyncio.to_thread(self.conversation.store.heading, id_)
        )

    # ------------------------------------------------------------------ files

    async def action_export(self, file: str) -> None:
        """To Markdown, or to JSON if the file is called so."""
        if (id_ := self.id_in_store) is not None:
            path = Path(file).expanduser()
            await self._do(
                lambda: self.conversation.store.export(id_, path), f"The chat is in {path}."
            )

    @work(group="import")
    async def action_import(self, file: str) -> None:
        path = Path(file).expanduser()
        notice = await self.conversation.note(f"Importing {path} …")
        cancel = threading.Event()
        left_out: list[str] = []
        counts = [0]

        async def show(news: list[int]) -> None:
            counts.append(news[-1])
            notice.say(f"Importing {path} … {_chats(counts[-1])} so far. Esc stops it.")

        try:
            ids = await in_thread(
                lambda put: self.store.import_(path, put, cancel, left_out.append),
                show,
                cancel.set,
            )
        except OndeviceError as error:
            await notice.remove()
            self.notify(str(error), severity="error")
            return
        except asyncio.CancelledError:
            notice.say(f"The import was stopped. {_chats(counts[-1])} were added before that.")
            raise
        await notice.remove()
        if len(ids) == 1:
            await self.go_to(ids[0], None)
        if left_out:
            await self.conversation.note(_told(left_out), error=True)
        added = "One chat was added." if len(ids) == 1 else f"{_chats(len(ids))} were added."
        if not (ids and self.settings.memory):
            self.notify(added)
            return
        question = (
            f"{added} Shall what you said there be remembered, as what you say here is? "
            "/forget takes it back."
        )
        if await self.app.push_screen_wait(ChoiceScreen(question, "No", "Remember it")):
            await self._remember(ids)

    async def _remember(self, ids: list[int]) -> None:
        notice = await self.conversation.note("Remembering …")
        cancel = threading.Event()

        async def show(counts: list[int]) -> None:
            notice.say(f"Remembering … {counts[-1]} messages so far. Esc stops it.")

        try:
            count = await in_thread(
                lambda put: self.store.remember(ids, put, cancel), show, cancel.set
            )
        except OndeviceError as error:
            notice.say(str(error))
        except asyncio.CancelledError:
            notice.say("Stopped. What was remembered so far stays; /forget takes it back.")
            raise
        else:
            one = "One of your messages is remembered."
            notice.say(one if count == 1 else f"{count} of your messages are remembered.")

    async def _do(self, change: Callable[[], object], done: str) -> None:
        try:
            await asyncio.to_thread(change)
        except OndeviceError as error:
            self.notify(str(error), severity="error")
        else:
            self.notify(done)


def _chats(count: int) -> str:
    return "1 chat" if count == 1 else f"{count} chats"


def _told(left_out: list[str]) -> str:
    """What an import could not read: the first ones by name."""
    what = "One thing was" if len(left_out) == 1 else f"{len(left_out)} things were"
    lines = [f"{what} left out:", *left_out[:_NAMED]]
    if len(left_out) > _NAMED:
        lines.append(f"and {len(left_out) - _NAMED} more.")
    return "\n".join(lines)
