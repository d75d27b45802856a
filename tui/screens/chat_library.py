"""What can be done with whole chats: begin, find, rename, pin, archive, delete, export, import."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on, work

from ondevice.chats import Chats, Heading, Import, Imported
from ondevice.errors import OndeviceError
from ondevice.text import reason
from tui.background import in_thread
from tui.messages import ChatChosen, ChatsChanged
from tui.open_tabs import OpenTab
from tui.screens.chat_panels import ChatPanels
from tui.screens.dialogs import ChoiceScreen

if TYPE_CHECKING:
    from tui.screens.chats import ChatsPanel, ChatsScreen

_NAMED, _NAMED_SHORTLY = 10, 3  # of what an import left out
_UNDO = "Undo this with /import undo."


class ChatLibrary(ChatPanels):
    _panel: ChatsPanel | None = None
    """The list of chats that was opened last."""

    async def action_new(self) -> None:
        await self.open(None)

    async def action_chats(self, words: str = "") -> None:
        """List all chats: beside this one where there is room, and else over it."""
        from tui.screens.chats import ChatsPanel, ChatsScreen  # noqa: PLC0415 - a faster start

        if words:
            await self.query(ChatsPanel).remove()
        elif await self.goes_to(ChatsPanel):
            return
        panel = ChatsPanel(self.store, self.open_tabs, words, beside=self.has_room)
        self._panel = panel
        if self.has_room:
            await self.open_beside(panel)
        else:
            self._choose(ChatsScreen(panel))

    async def action_find(self, words: str = "") -> None:
        from tui.screens.chats import ChatsPanel, ChatsScreen  # noqa: PLC0415 - a faster start

        if (id_ := self.id_in_store) is not None:
            panel = ChatsPanel(self.conversation.store, self.open_tabs, words, within=id_)
            self._choose(ChatsScreen(panel), self.conversation.store)

    @work
    async def _choose(self, screen: ChatsScreen, store: Chats | None = None) -> None:
        chosen = await self.app.push_screen_wait(screen)
        self._panel = None
        await self.refresh_from_store()
        if chosen is not None:
            self._go_to_chosen(chosen, store)

    @on(ChatChosen)
    def _go(self, message: ChatChosen) -> None:
        self._go_to_chosen(message)

    @work(exclusive=True, group="chosen")
    async def _go_to_chosen(self, chosen: ChatChosen, store: Chats | None = None) -> None:
        """Show what was chosen in the list of chats, in ``store`` if it is not that of all."""
        item = chosen.item
        if isinstance(item, OpenTab):
            if item.conversation in self.conversations:
                self.show(item.conversation)
        else:
            await self.go_to(item.heading.id, item.message_id, store, chosen.words)

    @on(ChatsChanged)
    async def _chats_changed(self) -> None:
        here = self.focused
        await self.refresh_from_store()
        if here is not None and here.is_attached:
            self.set_focus(here)  # where a chat that was shown is gone, the prompt has it

    def show_status(self) -> None:
        super().show_status()
        if self._panel is not None and self._panel.is_attached:
            self._panel.follow()

    # ------------------------------------------------------------------ this one

    async def action_rename(self, title: str) -> None:
        if (id_ := self.id_in_store) is not None:
            store = self.conversation.store
            await self._do(lambda: store.rename(id_, title), "Chat renamed.")
            await self.refresh_from_store()

    async def action_pin(self) -> None:
        store = self.conversation.store  # another chat may be shown before this is done
        if heading := await self._heading(store):
            pinned = not heading.pinned
            done = "pinned" if pinned else "unpinned"
            await self._do(lambda: store.pin(heading.id, pinned), f"Chat {done}.")

    async def action_archive(self) -> None:
        store = self.conversation.store
        if heading := await self._heading(store):
            archived = not heading.archived
            done = "archived" if archived else "restored"
            await self._do(lambda: store.archive(heading.id, archived), f"Chat {done}.")

    @work
    async def action_delete(self) -> None:
        from tui.screens.chats import delete  # noqa: PLC0415 - a faster start

        store = self.conversation.store
        if (heading := await self._heading(store)) and await delete(self, store, heading):
            await self.refresh_from_store()

    async def _heading(self, store: Chats) -> Heading | None:
        id_ = self.id_in_store
        return None if id_ is None else await asyncio.to_thread(store.heading, id_)

    # ------------------------------------------------------------------ files

    @work
    async def action_export(self, file: str) -> None:
        """To Markdown, or to JSON if the file is called so."""
        if (id_ := self.id_in_store) is None:
            return
        store = self.conversation.store
        path = _path(file)
        replace = False
        try:
            if path.is_dir():
                heading = await asyncio.to_thread(store.heading, id_)
                path /= f"{_file_name(heading.title if heading else '')}.md"
            if path.exists():
                question = f"{_shown(path)} already exists. Replace it?"
                answer = ChoiceScreen(question, "No", "Replace it")
                if await self.app.push_screen_wait(answer) != 1:
                    return
                replace = True
            others = await asyncio.to_thread(lambda: store.export(id_, path, replace=replace))
        except (OndeviceError, OSError, ValueError) as error:
            self.notify(reason(error), severity="error")
            return
        more = ""
        if others:
            them = "One message" if others == 1 else f"{others} messages"
            more = f" {them} of other versions were left out; a JSON export includes them."
        self.notify(f"Chat exported to {_shown(path)}.{more}")

    @work(group="import")
    async def action_import(self, file: str) -> None:
        """Read chats from a file or folder; “undo” takes the last import back."""
        if file == "undo":
            await self._undo_import()
            return
        path = _path(file)
        if (result := await self._import(path, deleted=False)) is None:
            return
        await self._show_import(result, path)
        if result.deleted:
            named = ", ".join(f"“{title}”" for title in result.deleted[:_NAMED_SHORTLY])
            named += ", …" if len(result.deleted) > _NAMED_SHORTLY else ""
            question = (
                f"{_was(len(result.deleted))} deleted here before: {named}. "
                f"Restore {'it' if len(result.deleted) == 1 else 'them'}?"
            )
            if (
                await self.app.push_screen_wait(ChoiceScreen(question, "No", "Bring them back"))
                == 1
            ):
                again = await self._import(path, deleted=True)
                if again:
                    await self._show_import(again, path)

    async def _import(self, path: Path, *, deleted: bool) -> Imported | None:
        """What came of it; None: it failed, as the user was told."""
        notice = self.conversation.note(f"Importing {_shown(path)} …")
        cancel = threading.Event()
        before: Import | None = None

        async def show(news: list[int]) -> None:
            notice.say(
                f"Importing {_shown(path)} … {_chats(news[-1])} so far. Esc stops the import."
            )

        try:
            before = await asyncio.to_thread(self.store.last_import)
            result = await in_thread(
                lambda put: self.store.import_(path, put, cancel, None, deleted),
                show,
                cancel.set,
            )
        except OndeviceError as error:
            await notice.remove()
            self.notify(str(error), severity="error")
            return None
        except asyncio.CancelledError:
            done: Import | None = None
            with suppress(OndeviceError):
                done = self.store.last_import()
            if done and (before is None or done.id != before.id):
                what = f"{_was(done.chats)} added before that. {_UNDO}"
            else:
                what = "Nothing was added."
            notice.say(f"Import stopped. {what}")
            raise
        await notice.remove()
        return result

    async def _show_import(self, result: Imported, path: Path) -> None:
        """Show what has come in, and ask whether it is to be remembered."""
        if len(result) == 1:
            await self.go_to(result[0], None)
        elif result:
            await self.refresh_from_store()
        if result.grown:
            await self.reload()  # they may be open
        if result.left_out:
            self.conversation.note(_left_out_words(result.left_out), error=True)
        summary = _summary(result)
        self.conversation.note(f"{_shown(path)}: {summary}{f' {_UNDO}' if result else ''}")
        if not (result and self.settings.memory):
            self.notify(summary)
            return
        question = f"{summary} Remember what you wrote there, as in your other chats?"
        if await self.app.push_screen_wait(ChoiceScreen(question, "No", "Remember it")):
            await self._remember(result)

    async def _undo_import(self) -> None:
        if any(one.replying for one in self.conversations):
            self.notify("A reply is in progress. Press Esc to stop it.")
            return
        try:
            run = await asyncio.to_thread(self.store.last_import)
            if run is None:
                self.notify("There is no import to undo.")
                return
            added = [_chats(run.chats)] if run.chats else []
            if run.grown:
                added.append(f"new messages in {_chats(run.grown)}")
            question = (
                f"Undo the import of {run.name} ({run.at.astimezone():%d %B, %H:%M})? It "
                f"added {' and '.join(added)}. All of it is removed, with what was "
                "remembered from it. What you have written in these chats since stays."
            )
            answer = ChoiceScreen(question, "No", "Undo it")
            if await self.app.push_screen_wait(answer) != 1:
                return
            undone = await asyncio.to_thread(self.store.undo_import, run)
        except OndeviceError as error:
            self.notify(str(error), severity="error")
            return
        await self.refresh_from_store()
        await self.reload()
        kept = (
            f" {_chats(undone.kept)} stay because you have continued them." if undone.kept else ""
        )
        if undone.kept == 1:
            kept = " 1 chat stays because you have continued it."
        self.notify(f"Import of {undone.name} undone.{kept}")

    async def _remember(self, result: Imported) -> None:
        notice = self.conversation.note("Remembering …")
        cancel = threading.Event()

        async def show(counts: list[int]) -> None:
            notice.say(f"Remembering … {counts[-1]} messages so far. Esc stops this.")

        try:
            count = await in_thread(
                lambda put: self.store.remember(result, put, cancel, run=result.run),
                show,
                cancel.set,
            )
        except OndeviceError as error:
            notice.say(str(error))
        except asyncio.CancelledError:
            notice.say("Stopped. What was remembered so far is kept; remove it with /forget.")
            raise
        else:
            one = "One of your messages was remembered."
            notice.say(one if count == 1 else f"{count} of your messages were remembered.")

    async def _do(self, change: Callable[[], object], done: str) -> None:
        try:
            await asyncio.to_thread(change)
        except OndeviceError as error:
            self.notify(str(error), severity="error")
        else:
            self.notify(done)
        if self._panel is not None and self._panel.is_attached:
            self._panel.update_list()


def _chats(count: int) -> str:
    return "1 chat" if count == 1 else f"{count} chats"


def _was(count: int) -> str:
    return "One chat was" if count == 1 else f"{count or 'No'} chats were"


def _summary(result: Imported) -> str:
    """What came of an import, in a sentence or two."""
    said = [f"{_was(len(result.new))} added." if result.new or not result else ""]
    if grown := len(result.grown):
        said.append(
            "One chat has new messages." if grown == 1 else f"{grown} chats have new messages."
        )
    if result.unchanged:
        said.append(f"{_was(result.unchanged)} already here.")
    return " ".join(filter(None, said))


def _path(file: str) -> Path:
    """The file that is meant, also where its name was quoted."""
    if len(file) > 1 and file[0] == file[-1] and file[0] in "\"'":
        file = file[1:-1]
    with suppress(RuntimeError):  # no such user
        return Path(file).expanduser()
    return Path(file)


def _shown(path: Path) -> str:
    """The whole path, from the home folder on if it is in there."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - links stay as they were typed
    with suppress(ValueError, RuntimeError):
        return str(Path("~") / path.relative_to(Path.home()))
    return str(path)


def _file_name(title: str) -> str:
    """A title as every file system takes it."""
    return re.sub(r"[^\w .,()-]+|^[. ]+", " ", title)[:80].strip(" .") or "chat"


def _left_out_words(left_out: list[str]) -> str:
    """What an import could not read: the first ones by name."""
    what = "One item was" if len(left_out) == 1 else f"{len(left_out)} items were"
    lines = [f"{what} left out:", *left_out[:_NAMED]]
    if len(left_out) > _NAMED:
        lines.append(f"and {len(left_out) - _NAMED} more.")
    return "\n".join(lines)
