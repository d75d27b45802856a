"""What can be typed after a slash; the same things are in the command palette."""

from __future__ import annotations

import re

import msgspec


class Command(msgspec.Struct, frozen=True):
    name: str
    action: str
    """Of the chat screen, or of the app; it takes the argument if there is one."""
    help: str
    argument: str = ""
    """What to type after the name, in capitals; empty: nothing. In brackets: may be left out."""

    @property
    def words(self) -> list[str]:
        """Words that may be typed after the name as they are."""
        return re.findall(r"[a-z]+", self.argument)

    @property
    def takes_file(self) -> bool:
        return "FILE" in self.argument


COMMANDS = (
    Command("new", "new", "Start a new chat in its own tab"),
    Command("close", "close", "Close this tab and keep the chat"),
    Command("chats", "chats", "Find an earlier chat", "[WORDS]"),
    Command("find", "find", "Find in this chat", "[WORDS]"),
    Command("rename", "rename", "Rename this chat", "TITLE"),
    Command("pin", "pin", "Pin or unpin this chat"),
    Command("archive", "archive", "Archive this chat, or bring it back"),
    Command("delete", "delete", "Delete this chat for good"),
    Command("edit", "edit", "Edit your last message and send it again"),
    Command("again", "regenerate", "Regenerate the last reply"),
    Command("continue", "go_on", "Continue a reply that was cut short"),
    Command("compact", "compact", "Summarise earlier messages for the model", "[edit|undo]"),
    Command("copy", "copy", "Copy the last message"),
    Command("code", "copy_code", "Copy the last code block"),
    Command("quote", "quote", "Quote the last message"),
    Command("stop", "stop", "Stop the reply"),
    Command("answer", "answer_now", "End the thinking and begin the answer"),
    Command("remember", "remember", "Save a note to memory", "TEXT"),
    Command("forget", "memory", "Find memories and forget them for good", "[WORDS]"),
    Command("memory", "memory", "Show what is remembered", "[WORDS]"),
    Command("used", "used", "Show which memories the last reply used, and why"),
    Command("pause", "pause", "Pause or resume memory in this chat and new ones"),
    Command("private", "private", "Start a private chat, which is never saved"),
    Command("models", "models", "Choose, download and load a model"),
    Command("ram", "ram", "Show the model's RAM use, and change it"),
    Command("export", "export", "Export this chat to a Markdown or JSON file", "FILE"),
    Command("import", "import", "Import chats from an export, or undo an import", "FILE|undo"),
    Command("persona", "persona", "Start a chat with another system prompt", "[NAME]"),
    Command("settings", "settings", "Settings, personas, keys and themes", "[WORDS]"),
    Command("set", "set", "Change a setting, or list them all", "[KEY [VALUE]]"),
    Command("guide", "guide", "Show the welcome guide again"),
    Command("help", "app.help", "Show help"),
    Command("quit", "quit", "Quit"),
)

_GIVEN = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)


def given(text: str) -> tuple[str, str] | None:
    """The name and the argument of the command that ``text`` is, or None if it is none."""
    match = _GIVEN.fullmatch(text)
    return (match[1], (match[2] or "").strip()) if match else None


def beginning(name: str) -> list[Command]:
    """The commands that begin so; the one of this very name comes first."""
    found = [command for command in COMMANDS if command.name.startswith(name)]
    return sorted(found, key=lambda command: command.name != name)


def find(name: str) -> Command | None:
    """The command of this name, or the only one that begins so."""
    found = beginning(name)
    exact = bool(found) and found[0].name == name
    return found[0] if exact or len(found) == 1 else None
