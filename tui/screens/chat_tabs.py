"""What can be done with the open conversations: go from one to another, close them."""

from __future__ import annotations

from textual import on, work

from tui.screens.chat_base import ChatBase
from tui.screens.dialogs import ChoiceScreen
from tui.widgets.tab_bar import TabBar


class ChatTabs(ChatBase):
    def action_tab(self, direction: int) -> None:
        """Show the next conversation to the right (1) or to the left (-1)."""
        place = self.conversations.index(self.conversation) + direction
        self.show(self.conversations[place % len(self.conversations)])

    @work
    async def action_close(self) -> None:
        """Close this tab; ask first if the chat is kept nowhere."""
        conversation = self.conversation
        if conversation in self.would_be_lost and not await self.app.push_screen_wait(
            ChoiceScreen(
                "This chat is private. When you close it, it is gone for good.",
                "Keep it open",
                "Close it",
            )
        ):
            return
        if conversation in self.conversations:
            await self.close(conversation)

    @property
    def loss_on_quit(self) -> str:
        """What leaving would lose, in sentences; empty: nothing."""
        said = []
        if count := len(self.would_be_lost):
            chats = "A private chat is" if count == 1 else f"{count} private chats are"
            said.append(f"{chats} open and will be gone for good.")
        if self.store.unsaved:
            said.append("The end of a reply could not be saved yet.")
        return " ".join(said)

    @on(TabBar.Chosen)
    def _show_chosen(self, message: TabBar.Chosen) -> None:
        self.show(self.conversations[message.place])
