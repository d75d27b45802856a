"""Has ready what the first message of a process would wait for."""

from __future__ import annotations

from contextlib import closing
from functools import cache

from ondevice.chats._chats import Chats
from ondevice.store import TransientDatabase


@cache
def warm_up() -> None:
    """Have the memory read a message that is kept nowhere.

    That imports its parts and compiles hundreds of patterns, which takes half a second: call it in
    a thread, while there is nothing else to do.
    """
    with closing(TransientDatabase()) as database:
        chats = Chats(database)
        chats.say(chats.create(), "My name is Ann. When did I tell you what I like?", recall=100)
