"""What can be done with the open conversations: go from one to another, close them."""

from __future__ import annotations

from textual import on

from tui.screens.chat_base import ChatBase
from tui.widgets.tab_bar import TabBar


class ChatTabs(ChatBase):
    def action_tab(self, direction: int) -> None:
        """Show the next conversation to the right (1) or to the left (-1)."""
        place = self.conversations.index(self.conversation) + direction
        self.show(self.conversations[place % len(self.conversations)])

    async def action_close(self) -> None:
        await self.close(self.conversation)

    @on(TabBar.Chosen)
    def _show_chosen(self, message: TabBar.Chosen) -> None:
        self.show(self.conversations[message.place])
