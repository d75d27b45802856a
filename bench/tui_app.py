"""What ``bench/tui.py`` measures of the app itself, which Textual's pilot drives."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import frame
import random_user
import tui_process
from textual import events

from ondevice import models
from ondevice.chats import Chats, reply
from ondevice.config import FIRST, Settings
from ondevice.engine import Engine
from ondevice.messages import Finished, Load, Sampling, Statistics
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


def streaming(tokens: int) -> dict[str, float]:
    """A reply that is shown, between two that are only received and saved, for a machine may become
    faster or slower meanwhile."""
    before = received(tokens)
    run, shown = asyncio.run(showing(tokens))
    after = received(tokens)
    assert shown.generated_tokens == before.generated_tokens == after.generated_tokens
    alone = (before.generated_per_second + after.generated_per_second) / 2
    return run | {
        "stream_cost_pct": 100 * (1 - shown.generated_per_second / alone),
        "stream_tokens": shown.generated_tokens,
        "stream_tokens_per_s": alone,
    }


async def showing(tokens: int) -> tuple[dict[str, float], Statistics]:
    """A reply during which somebody types, then another one without that, and its statistics."""
    engine = Engine()
    plain: dict[str, Any] = {"system": "", "sampling": GREEDY, "memory": False}
    settings = Settings(model=str(model()), ctx=tokens + 100, **plain)
    with store() as chats:
        app = OndeviceApp(engine, chats, settings)
        async with app.run_test(size=SIZE) as pilot:
            screen = chat(app)
            while not engine.loaded:
                await pilot.pause(0.05)
            await ask(screen, QUESTION)
            await until(lambda: bool(screen.status.estimate))
            typed = [await type_letter(screen) for _ in range(30)]
            screen.prompt.text = ""
            screen.conversation.stop()
            await until(lambda: not screen.conversation.replying)
            await screen.open(None)
            used = time.process_time()
            await ask(screen, QUESTION)
            await until(lambda: screen.conversation.replying)
            await until(lambda: not screen.conversation.replying)
            used = time.process_time() - used
            shown = screen.conversation.statistics
    assert shown
    return {
        "typing_p95_ms": p95(typed) * 1e3,
        "stream_app_cpu_pct": 100 * used / (shown.generated_ms / 1e3),
    }, shown


def received(tokens: int) -> Statistics:
    """Of the same reply, received and saved by nobody but this process."""
    with store() as chats, Engine() as engine:
        engine.load(Load(path=str(model()), n_ctx=tokens + 100))
        conversation = chats.create()
        chats.say(conversation, QUESTION)
        events = list(reply(chats, engine, conversation, GREEDY))
    return next(event.statistics for event in events if isinstance(event, Finished))


async def writing_code(letters: int) -> dict[str, float]:
    """Somebody types while a block of code comes: its first 72 KB soon, and then line by line."""
    line = "    total += weights[row] * inputs[column]  # each of them once\n"
    soon = ["```python\n", *(line * 16 for _ in range(72_000 // len(line * 16)))]
    later = [step for _ in range(9999) for step in (line, Pause(0.02))]
    engine = FakeEngine([step for piece in soon for step in (piece, Pause(0.05))] + later)
    with store() as chats:
        app = OndeviceApp(engine, chats, Settings(model=str(model())))
        async with app.run_test(size=SIZE) as pilot:
            await pilot.pause()
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
        async with app.run_test(size=SIZE) as pilot:
            await pilot.pause()
            screen = chat(app)
            started = time.perf_counter()
            await screen.go_to(conversation, None)
            await drawn(screen)
            opened = time.perf_counter() - started
            await pilot.pause()
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
