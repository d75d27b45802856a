"""Settings in the terminal app: changed by hand or in the app, themes, keys, and linear mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
from terminal_user import User, at_the_terminal

from ondevice import config, paths
from ondevice.chats import Chats
from ondevice.config import App, Settings
from ondevice.engine._fake import FakeEngine
from ondevice.engine.messages import Chunk, Generate
from ondevice.errors import ConfigError
from ondevice.store import Database

OpenApp = Callable[..., AbstractAsyncContextManager[User]]


@pytest.fixture
def chats(tmp_path: Path) -> Iterator[Chats]:
    database = Database(tmp_path / "store.db")
    yield Chats(database)
    database.close()


@pytest.fixture
def open_app(chats: Chats, tmp_path: Path) -> OpenApp:
    model = tmp_path / "Tiny-1B.gguf"
    model.touch()
    return partial(at_the_terminal, chats=chats, model=model)


def test_a_change_leaves_comments_and_layout_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('# mine\nmodel = "a"  # why\n\n[sampling]\n# warm\ntemperature = 0.5\n')
    settings = config.load(path)
    settings = config.change(settings, "sampling.temperature", "0.7", path)
    settings = config.change(settings, "app.keys.chat.new", "f6", path)
    assert path.read_text() == (
        '# mine\nmodel = "a"  # why\n\n[sampling]\n# warm\ntemperature = 0.7\n\n'
        '[app.keys]\n"chat.new" = "f6"\n'
    )
    assert config.load(path) == settings
    config.change(settings, "model", "", path)
    assert config.load(path).model == Settings().model


@pytest.mark.parametrize(
    ("key", "text"),
    [("nope", "1"), ("ctx", "x"), ("sampling.top_q", "1"), ("ram", "lots"), ("app", "1")],
)
def test_a_wrong_change_is_refused_and_the_file_stays(tmp_path: Path, key: str, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text("# mine\n")
    with pytest.raises(ConfigError):
        config.change(Settings(), key, text, path)
    assert path.read_text() == "# mine\n"


async def test_a_setting_is_changed_in_the_app_and_kept(open_app: OpenApp) -> None:
    engine = FakeEngine()
    async with open_app(engine) as user:
        await user.says("/set sampling.temperature 0.25")
        await user.sees("sampling.temperature is set.")
        await user.says("Hi")
        await user.sees("Hello.")
        await user.says("/set sampling.t")
        await user.sees("sampling.temperature = 0.25")
        await user.says("/set ctx many")
        await user.sees("Expected")
    request = engine.requests[-1]
    assert isinstance(request, Generate)
    assert request.sampling.temperature == 0.25
    assert paths.config_file().read_text() == "[sampling]\ntemperature = 0.25\n"


async def test_a_theme_is_kept(open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        user.pilot.app.theme = "nord"
        await user.sees("app.theme is set.")
    assert config.load().app.theme == "nord"
    async with open_app(FakeEngine(), app=App(theme="nord")) as user:
        assert user.pilot.app.theme == "nord"


async def test_keys_are_those_of_the_settings(open_app: OpenApp) -> None:
    async with open_app(FakeEngine(), app=App(keys={"chat.chats": "f9"})) as user:
        await user.pilot.press("f9")
        await user.sees("Nothing yet")


async def test_help_tells_the_keys_of_what_is_in_focus(open_app: OpenApp) -> None:
    async with open_app(FakeEngine(), size=(120, 40)) as user:
        await user.pilot.press("f1")
        await user.sees("Enter sends; Shift+Enter")
        await user.pilot.press("f1")
        await user.until(lambda: "Enter sends; Shift+Enter" not in user.screen, "closed")


DRAWN = {chr(code) for code in range(0x2500, 0x25A0)}
REPLY = "# Title\n\n> quoted\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n---\n\n```\ncode\n```\nEnd."


async def test_in_linear_mode_nothing_is_drawn_and_words_tell_who_speaks(
    open_app: OpenApp,
) -> None:
    thought = Chunk(text="Hm.", part="thinking")
    async with open_app(FakeEngine([thought, REPLY]), app=App(linear=True), size=(80, 40)) as user:
        await user.says("Hi")
        await user.sees("End.")
        await user.is_idle()
        await user.sees("You:")
        await user.sees("  | 1 | 2 |\n")
        assert not DRAWN & set(user.screen)
        for key, text in (("ctrl+r", "2 messages"), ("ctrl+o", "Memory"), ("ctrl+l", "Models")):
            await user.pilot.press(key)
            await user.sees(text)
            assert not DRAWN & set(user.screen)
            await user.pilot.press("escape")


@pytest.mark.parametrize("size", [(40, 12), (300, 80)])
@pytest.mark.parametrize("theme", ["textual-light", "ansi-dark"])
async def test_small_and_large_terminals_show_what_matters(
    open_app: OpenApp, size: tuple[int, int], theme: str
) -> None:
    reply = "שלום, 世界 and 👩‍👩‍👧 are here. " * 8 + "End."
    async with open_app(FakeEngine([reply]), app=App(theme=theme), size=size) as user:
        await user.says("Hi")
        await user.sees("End.")
        await user.is_idle()
        assert "Tiny-1B" in user.screen
        await user.pilot.press("ctrl+r")
        await user.sees("Hi")
        assert all(len(line) <= size[0] for line in user.screen.splitlines())
