"""Has ready what the first message and its reply would wait for, before the user sends it."""

from __future__ import annotations

import asyncio

from ondevice import chats


async def warm_up(*, memory: bool, linear: bool) -> None:
    """What reads Markdown, and the ``memory`` if it is in use, in a thread."""
    await asyncio.to_thread(_warm_up, memory=memory, linear=linear)


def _warm_up(*, memory: bool, linear: bool) -> None:
    from tui.markdown.parser import parser  # noqa: PLC0415 - a faster start

    parser(linear=linear).parse("https://example.com", {"references": {}, "open": ""})
    if memory:
        chats.warm_up()
