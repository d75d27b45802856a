"""Choosing a model in the terminal app: on disk, from the catalogue, and changing one's mind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from terminal_user import at_the_terminal

from ondevice import models, paths
from ondevice.chats import Chats
from ondevice.engine._fake import FakeEngine, Gate
from ondevice.engine.messages import Load
from ondevice.errors import DownloadCancelled, DownloadError
from ondevice.models import InstalledModel, PullProgress
from ondevice.store import Database

DEFAULT = "smollm2-135m"


@pytest.fixture
def chats(tmp_path: Path) -> Iterator[Chats]:
    database = Database(tmp_path / "store.db")
    yield Chats(database)
    database.close()


def on_disk(name: str) -> InstalledModel:
    """Put a file where a model of this name belongs."""
    path = paths.ensure_private(paths.models_dir() / name) / f"{name}.gguf"
    path.touch()
    return models.find(name)


class Download:
    """Stands in for a download: half of it comes at once, the rest when the gate opens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.gate = Gate()
        self.error = error
        monkeypatch.setattr(models, "pull", self._pull)

    def _pull(
        self, name: str, on_progress: Callable[[PullProgress], None], cancel: threading.Event
    ) -> InstalledModel:
        on_progress(PullProgress(46_000_000, 92_000_000))
        while not self.gate.opened(0.01):
            if cancel.is_set():
                raise DownloadCancelled
        if self.error:
            raise self.error
        return on_disk(name)


async def test_the_first_start_offers_to_fetch_the_model_and_loads_it(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = Download(monkeypatch)
    engine = FakeEngine(["Hello!"])
    async with at_the_terminal(engine, chats, DEFAULT) as user:
        await user.sees("not on disk yet")
        await user.sees("SmolLM2 135M Instruct")
        await user.sees("98 MB")
        assert "Apache-2.0" in user.screen
        await user.pilot.press("enter")
        await user.sees("50%")
        download.gate.open()
        await user.until(lambda: engine.loaded is not None, "loaded")
        await user.says("Hi")
        await user.sees("Hello!")


async def test_a_download_can_be_cancelled_and_begun_again(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = Download(monkeypatch)
    engine = FakeEngine()
    async with at_the_terminal(engine, chats, DEFAULT) as user:
        await user.sees("not on disk yet")
        await user.pilot.press("enter")
        await user.sees("50%")
        await user.pilot.press("escape")
        await user.sees("The download was cancelled.")
        download.gate.open()
        await user.pilot.press("enter")
        await user.until(lambda: engine.loaded is not None, "loaded")


async def test_a_download_that_fails_says_why(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    Download(monkeypatch, DownloadError("The network is down. Try again.")).gate.open()
    async with at_the_terminal(FakeEngine(), chats, DEFAULT) as user:
        await user.sees("not on disk yet")
        await user.pilot.press("enter")
        await user.sees("The network is down.")


async def test_another_model_is_loaded_in_mid_conversation(chats: Chats) -> None:
    first, second = on_disk("first"), on_disk("second")
    gate = Gate()
    engine = FakeEngine(["Half ", Gate()], ["Second speaking."], loads=[[1.0], [0.4, gate]])
    async with at_the_terminal(engine, chats, first.name) as user:
        await user.says("Hi")
        await user.sees("Half")
        await user.pilot.press("ctrl+l")
        await user.sees("on disk")
        await user.pilot.press("down", "enter")
        await user.sees("Stopped.")
        await user.sees("loading 40%")
        await user.says("Who?")
        gate.open()
        await user.sees("Second speaking.")
        await user.sees("second")
    loads = [request.path for request in engine.requests if isinstance(request, Load)]
    assert loads == [str(first.path), str(second.path)]


async def test_a_load_can_be_cancelled(chats: Chats) -> None:
    model = on_disk("slow")
    engine = FakeEngine(loads=[[0.1, Gate()]])
    async with at_the_terminal(engine, chats, model.name) as user:
        await user.sees("loading 10%")
        await user.pilot.press("escape")
        await user.until(lambda: "loading" not in user.status, "no longer loading")
        assert "no model" in user.status


async def test_an_unknown_model_is_named_and_others_are_offered(chats: Chats) -> None:
    async with at_the_terminal(FakeEngine(), chats, "smolm") as user:
        await user.sees("There is no model named smolm.")
        await user.sees("SmolLM2 135M Instruct")
