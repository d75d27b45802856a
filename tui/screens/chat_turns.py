"""What can be done with the messages of the chat: edit, answer anew, switch, copy, quote."""

from __future__ import annotations

from typing import TypeVar

from markdown_it import MarkdownIt

from tui import clipboard
from tui.screens.chat_base import ChatBase
from tui.widgets.message import MessageView
from tui.widgets.reply import Reply
from tui.widgets.user_message import UserMessage

_View = TypeVar("_View", bound=MessageView)


class ChatTurns(ChatBase):
    """The message meant is the one that is pointed at, or else the last one."""

    def action_point(self, direction: int) -> None:
        """Point at the message before or after; past the last one is the prompt."""
        views = self.conversation.views
        pointed_at = next((view for view in views if view.has_focus_within), None)
        place = views.index(pointed_at) + direction if pointed_at else len(views) - 1
        if (pointed_at or direction < 0) and place < len(views):
            view = views[max(0, place)]
            self.set_focus(view, scroll_visible=False)
            self.conversation.scroll_to_widget(view, animate=False)
        else:
            self.set_focus(self.prompt)
            self.conversation.anchor()

    def action_edit(self) -> None:
        view = self._meant(UserMessage)
        if view and view.message:
            self.prompt.revise(view.message)

    def action_regenerate(self) -> None:
        if not self.is_busy() and (view := self._meant(MessageView)):
            self.set_focus(self.prompt)
            self.conversation.regenerate(view)

    def action_go_on(self) -> None:
        if not self.is_busy() and (view := self._meant(MessageView)):
            if view is not self.conversation.views[-1]:
                self.notify("Only the last reply can go on.")
                return
            self.set_focus(self.prompt)
            self.conversation.go_on(view)

    async def action_version(self, direction: int) -> None:
        """Switch to the branch of an earlier or later version of the message."""
        view = self._meant(MessageView)
        if view and view.message and not self.is_busy():
            versions = view.message.versions
            place = versions.index(view.message.id) + direction
            if 0 <= place < len(versions):
                await self.conversation.show_version(versions[place])

    def action_copy(self) -> None:
        selected = self.get_selected_text()
        if selected:
            self._copy(selected, "The selected text")
        elif (view := self._meant(MessageView)) and view.message:
            self._copy(view.message.content, "The message")

    def action_copy_code(self) -> None:
        view = self._meant(Reply)
        blocks = _code_blocks(view.message.content) if view and view.message else []
        if not blocks:
            self.notify("There is no block of code in the reply.")
            return
        # Pressed again, it takes the block before.
        place = blocks.index(self.app.clipboard) if self.app.clipboard in blocks else 0
        self._copy(blocks[place - 1], f"Block {(place - 1) % len(blocks) + 1} of {len(blocks)}")

    def action_quote(self) -> None:
        selected = self.get_selected_text()
        if selected:
            self.prompt.quote(selected)
        elif (view := self._meant(MessageView)) and view.message:
            self.prompt.quote(view.message.content)

    def _copy(self, text: str, what: str) -> None:
        clipboard.copy(self.app, text)
        self.notify(f"{what} is in the clipboard.")

    def _meant(self, kind: type[_View]) -> _View | None:
        views = [view for view in self.conversation.views if isinstance(view, kind)]
        pointed_at = next((view for view in views if view.has_focus_within), None)
        return pointed_at or (views[-1] if views else None)


def _code_blocks(text: str) -> list[str]:
    tokens = MarkdownIt("gfm-like").parse(text)
    return [token.content for token in tokens if token.type in ("fence", "code_block")]
