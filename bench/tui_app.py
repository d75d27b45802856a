"""What ``bench/tui.py`` measures of the app itself, which Textual's pilot drives."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import frame
import random_user
import tui_process
from textual import events
from textual.drivers.headless_driver import HeadlessDriver

from ondevice import models
from ondevice.chats import Chats, reply
from ondevice.config import FIRST, Settings
from ondevice.engine import Engine, EngineLike
from ondevice.messages import Finished, Sampling, Statistics
from ondevice.store import Database
from ondevice.testing import FakeEngine, Pause
from tui.app import OndeviceApp
from tui.screens.chat import ChatScreen

QUESTION = "Tell me a long story about the sea."
GREEDY = Sampling(temperature=0)
SIZE = tui_process.SIZE
MARKDOWN = """\
A paragraph with **bold** words, `code` and a [link](https://example.com), long enough for two lines
of a usual terminal.

```python
def answer(question):
    return 42
```

- one
- two
"""


async def clean_runs(count: int) -> int:
    clean = 0
    for number in range(count):
        source = random.Random(f"{os.environ.get('ONDEVICE_SEED') or 1} {number}")
        todo, seed = random_user.deeds(source, 300), str(source.random())
        with tempfile.TemporaryDirectory() as folder:
            try:
                await random_user.play(todo, Path(folder), seed)
                clean += 1
            except Exception as error:
                frame.say(f"run {number}: {error!r}")
    return clean


async def streaming(tokens: int, replies: int) -> dict[str, float]:
    """Somebody types during replies; then the same one over and over, in one app with one engine:
    each that is shown comes between two that are only received and saved."""
    engine = Engine()
    plain: dict[str, Any] = {"system": "", "sampling": GREEDY, "memory": False}
    settings = Settings(model=str(model()), ctx=tokens + 100, **plain)
    with store() as chats:
        app = OndeviceApp(engine, chats, settings)
        async with at_a_terminal(app):
            screen = chat(app)
            await until(lambda: engine.loaded)
            typed = [await type_in_reply(screen) for _ in range(30)]
            screen.prompt.text = ""
            await screen.conversation.end()
            alone = [await received(screen)]
            shown: list[tuple[Statistics, float]] = []
            for _ in range(replies):
                shown.append(await showing(screen))
                alone.append(await received(screen))
    assert len({s.generated_tokens for s in [*alone, *(s for s, _ in shown)]}) == 1
    rates = [statistics.generated_per_second for statistics in alone]
    costs = [
        100 * (1 - 2 * statistics.generated_per_second / (before + after))
        for (statistics, _), before, after in zip(shown, rates, rates[1:], strict=False)
    ]
    return {
        "typing_p95_ms": p95(typed) * 1e3,
        "stream_cost_pct": frame.median(costs),
        "stream_app_cpu_pct": frame.median(1e5 * cpu / s.generated_ms for s, cpu in shown),
        "stream_tokens": alone[0].generated_tokens,
        "stream_tokens_per_s": frame.median(rates),
    }


async def showing(screen: ChatScreen) -> tuple[Statistics, float]:
    """Of a reply in a chat of its own, and the seconds of processor time that the app took from
    the question to the reply's end."""
    await screen.close(screen.conversation)
    used = time.process_time()
    await ask(screen, QUESTION)
    await until(lambda: screen.conversation.replying)
    await screen.conversation.ended()
    await drawn(screen)
    used = time.process_time() - used
    assert screen.conversation.statistics
    return screen.conversation.statistics, used


async def received(screen: ChatScreen) -> Statistics:
    """Of the same reply, which the app saves and does not show."""

    def receive(engine: EngineLike) -> Statistics:
        conversation = screen.store.create()
        screen.store.say(conversation, QUESTION)
        events = list(reply(screen.store, engine, conversation, GREEDY))
        return next(event.statistics for event in events if isinstance(event, Finished))

    return await screen.engine.ask(receive)


async def writing_code(letters: int) -> dict[str, float]:
    """Somebody types while a block of code comes: its first 72 KB soon, and then line by line."""
    line = "    total += weights[row] * inputs[column]  # each of them once\n"
    soon = ["```python\n", *(line * 16 for _ in range(72_000 // len(line * 16)))]
    later = [step for _ in range(9999) for step in (line, Pause(0.02))]
    engine = FakeEngine([step for piece in soon for step in (piece, Pause(0.05))] + later)
    with store() as chats:
        app = OndeviceApp(engine, chats, Settings(model=str(model())))
        async with at_a_terminal(app):
            screen = chat(app)
            await ask(screen, QUESTION)
            await until(lambda: bool(screen.status.estimate))
            typed = [await type_letter(screen) for _ in range(letters)]
            screen.conversation.stop()
            await until(lambda: not screen.conversation.replying)
    return {"typing_code_p95_ms": p95(typed) * 1e3}


async def long_conversation(pages: int, jumps: int) -> dict[str, float]:
    """Open a conversation of 10,000 messages, page up through it, jump about, and delete it."""
    with store() as chats:
        conversation = chats.create()
        texts = [f"{n}. {MARKDOWN if n % 2 else 'Why?'}" for n in range(10_000)]
        long_ago = "2026-01-01T00:00:00+00:00"
        with chats.database.write() as connection:
            connection.executemany(
                "INSERT INTO message (conversation_id, parent_id, position, role, content, "
                "created_at, finish_reason) VALUES (?, ?, ?, ?, ?, ?, 'stop')",
                [
                    (conversation, n or None, n, "assistant" if n % 2 else "user", text, long_ago)
                    for n, text in enumerate(texts)
                ],
            )
            connection.execute("UPDATE conversation SET end_id = 10000")
        app = OndeviceApp(FakeEngine(), chats, Settings(model=str(model())))
        async with at_a_terminal(app):
            screen = chat(app)
            started = time.perf_counter()
            await screen.go_to(conversation, None)
            await drawn(screen)
            opened = time.perf_counter() - started
            await drawn(screen)
            ticks = asyncio.create_task(longest_gap())
            for _ in range(pages):
                app.post_message(events.Key("pageup", None))
                await asyncio.sleep(0)
                await drawn(screen)
                await asyncio.sleep(0.05)
            ticks.cancel()
            longest, longest_cpu = await ticks
            assert len(screen.conversation.views) < 100
            source = random.Random(1)
            jumped = [
                await jump(screen, conversation, source.randrange(1, 10_001)) for _ in range(jumps)
            ]
        started = time.perf_counter()
        chats.delete(conversation)
        deleted = time.perf_counter() - started
    return {
        "jumps_right": sum(right for right, _ in jumped) * 50 / jumps,
        "jump_p95_ms": p95([took for _, took in jumped]) * 1e3,
        "delete_10k_ms": deleted * 1e3,
        "open_10k_ms": opened * 1e3,
        "frame_max_ms": longest * 1e3,
        "frame_max_cpu_ms": longest_cpu * 1e3,
    }


async def jump(screen: ChatScreen, conversation: int, message: int) -> tuple[bool, float]:
    """Whether the message comes into view and stays there, and the seconds that it takes."""

    def in_view() -> bool:
        shown = screen.conversation
        view = next((v for v in shown.views if v.message and v.message.id == message), None)
        return view is not None and view.region.overlaps(shown.region)

    started = time.perf_counter()
    await screen.go_to(conversation, message)
    while not in_view() and time.perf_counter() - started < 5:
        await asyncio.sleep(0.005)
    await drawn(screen)
    took = time.perf_counter() - started
    await asyncio.sleep(0.3)
    return in_view(), took


# ------------------------------------------------------------------ at the terminal


def model() -> Path:
    return models.find(FIRST).path


class _Terminal(HeadlessDriver):
    """Gets what a terminal would get, unlike that of a test, and shows it to nobody."""

    is_headless = False


@asynccontextmanager
async def at_a_terminal(app: OndeviceApp) -> AsyncIterator[None]:
    app.driver_class = _Terminal
    async with app.run_test(headless=False, size=SIZE) as pilot:
        await pilot.pause()
        yield


@contextmanager
def store() -> Iterator[Chats]:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "store.db")
        yield Chats(database)
        database.close()


def chat(app: OndeviceApp) -> ChatScreen:
    assert isinstance(app.screen, ChatScreen)
    return app.screen


async def ask(screen: ChatScreen, text: str) -> None:
    screen.prompt.text = text
    await screen.prompt.action_send()


async def type_in_reply(screen: ChatScreen) -> float:
    """As ``type_letter``, in another reply if the one before has ended."""
    if not (screen.conversation.replying and screen.status.estimate):
        await screen.close(screen.conversation)
        await ask(screen, QUESTION)
        await until(lambda: bool(screen.status.estimate))
    return await type_letter(screen)


async def type_letter(screen: ChatScreen) -> float:
    """Seconds from the key press to the letter on the screen."""
    before = len(screen.prompt.text)
    started = time.perf_counter()
    screen.app.post_message(events.Key("x", "x"))
    while len(screen.prompt.text) == before:
        await asyncio.sleep(0.001)
    await drawn(screen)
    took = time.perf_counter() - started
    await asyncio.sleep(0.1)
    return took


def p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


async def drawn(screen: ChatScreen) -> None:
    """Wait until what has changed is on the screen."""
    done = asyncio.Event()
    screen.prompt.call_after_refresh(done.set)
    await done.wait()


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.02)


async def longest_gap() -> tuple[float, float]:
    """Until it is cancelled: the longest time in which nothing else had a turn, and of processor
    time, both in seconds."""
    longest = longest_cpu = 0.0
    try:
        while True:
            before, before_cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - before - 0.001)
            longest_cpu = max(longest_cpu, time.thread_time() - before_cpu)
    except asyncio.CancelledError:
        return longest, longest_cpu
