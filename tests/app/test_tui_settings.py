"""Settings in the terminal app: changed by hand or in the app, themes, keys, and linear mode."""

from __future__ import annotations

import re
import tomllib
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import long_chats
import pytest
from msgspec.structs import asdict, replace
from terminal_user import OpenApp, User
from textual.widgets import OptionList

from ondevice import config, paths
from ondevice.chats import Chats
from ondevice.config import App, Settings
from ondevice.errors import ConfigError
from ondevice.messages import Chunk, Generate, Turn
from ondevice.testing import FakeEngine
from tui import settings_form
from tui.app import OndeviceApp
from tui.commands import COMMANDS
from tui.screens.dialogs import ChoiceScreen
from tui.screens.settings import SettingsScreen


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


def test_settings_that_windows_change_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"

    def change(key: str) -> list[int]:
        """What was not there afterwards."""
        lost = []
        for value in range(1, 31):
            config.change(config.Settings(), key, str(value), path)
            if tomllib.loads(path.read_text())["sampling"][key.removeprefix("sampling.")] != value:
                lost.append(value)
        return lost

    keys = ["sampling.top_k", "sampling.seed", "sampling.repeat_last_n"]
    with ThreadPoolExecutor() as windows:
        assert list(windows.map(change, keys)) == [[], [], []]
    assert list(tmp_path.iterdir()) == [path]


def test_a_setting_that_cannot_be_written_says_so_and_blames_no_line_of_the_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"could not be written: .* The setting is unchanged\."):
        config.change(config.Settings(), "threads", "2", tmp_path / "file" / "config.toml")


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


@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        ("sampling.temperature", "5000", "must be a number from 0 to 100, not 5000."),
        ("sampling.temperature", "nan", "must be a number"),
        ("whatever", "3", "There is no setting whatever. Known settings: model, system,"),
        ("sampling.temprature", "1", "Did you mean sampling.temperature?"),
        ("temprature", "1", "Did you mean sampling.temperature?"),
        ("ctx", "many", "ctx must be a whole number from 16 to 2147483647, not many."),
        ("prefer", "magic", "prefer must be one of"),
        ("memory", "maybe", "memory must be true or false, not maybe."),
        ("thinking", "much", "one of off, on or a whole number from 0 to 2147483647, not much."),
        ("thinking", "-3", "not -3."),
    ],
)
def test_a_wrong_value_is_told_with_what_is_possible(key: str, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)) as raised:
        config.change(Settings(), key, text)
    assert not re.search(r"[`$]|unknown field", str(raised.value))


@pytest.mark.parametrize(
    ("written", "thinks", "tokens"),
    [
        ("", None, None),
        ("true", True, None),
        ('"on"', True, None),
        ("false", False, None),
        ('"off"', False, None),
        ("0", False, None),
        ("1", True, 1),
        ("2000", True, 2000),
    ],
)
def test_thinking_is_on_off_or_a_number_wherever_it_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    written: str,
    thinks: bool | None,
    tokens: int | None,
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"thinking = {written}\n" if written else "")
    typed = written.strip('"')
    given = [config.load(path), config.change(Settings(), "thinking", typed, path)]
    given.append(config.load(path))
    path.write_text("")
    monkeypatch.setenv("ONDEVICE_THINKING", typed)
    given.append(config.load(path))
    assert {(one.thinks, one.thinking_tokens) for one in given} == {(thinks, tokens)}


FILE = """\
ctx = "long"
theme = "x"  # in no table
memory = false
[sampling]
temperature = 5000
top_k = 7
this is nothing
[app.keys]
"chat.new" = 3
'chat.chats' = "f9"
"chat.stop" = "notakey"
"chat.nothing" = "f7"
"""


async def test_what_is_wrong_in_the_file_has_its_default_and_is_told(
    chats: Chats, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(FILE)
    settings, problems = config.salvage(path)
    assert (settings.ctx, settings.memory) == (None, False)
    assert (settings.sampling.temperature, settings.sampling.top_k) == (0.6, 7)
    assert {re.findall(r"line \d+: ", problem)[0] for problem in problems} == {
        *("line 1: ", "line 2: ", "line 5: ", "line 7: ", "line 9: ")
    }
    with pytest.raises(ConfigError, match="line 1"):
        config.load(path)
    config.change(settings, "prefer", "exact", tmp_path / "other.toml")
    settings = replace(settings, model=str(path))
    app = OndeviceApp(FakeEngine(), chats, settings, problems=problems)
    async with app.run_test(size=(100, 40)) as pilot:
        user = User(pilot)
        await user.sees("no key “notakey”")
        await user.sees("no action chat.nothing")
        await user.sees("sampling.temperature must be a number from 0 to 100")
        await pilot.press("f9")
        await user.sees("No chats yet")


@pytest.mark.parametrize("text", ["\0", "= = =\n", "ctx = [\n", "sampling = 3\napp = []", "\n" * 9])
def test_no_file_keeps_the_app_from_starting(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    settings, problems = config.salvage(path)
    assert settings == Settings()
    assert bool(problems) == bool(text.strip())


async def test_keys_are_checked(open_app: OpenApp) -> None:
    async with open_app(FakeEngine(), size=(120, 30)) as user:
        await user.says("/set app.keys.chat.new notakey")
        await user.sees("There is no key “notakey”.")
        await user.says("/set app.keys.chat.news f7")
        await user.sees("no action chat.news")
        await user.says("/set app.keys.chat.new b")
        await user.sees("needed for typing")
        await user.says("/set app.theme dark-matter")
        await user.sees("There is no theme dark-matter.")
        await user.says("/set app.keys.chat.new ctrl+t,alt+question_mark")
        await user.sees("Saved ")
    assert config.load().app.keys == {"chat.new": "ctrl+t,alt+question_mark"}


async def test_settings_are_told_as_they_stand_in_the_file(open_app: OpenApp) -> None:
    async with open_app(FakeEngine(), size=(100, 50)) as user:
        await user.says("/set")
        await user.sees("ctx is not set")
        for spelling in ('system = "You are', "memory = true", "app.linear = false"):
            await user.sees(spelling)
        for of_python in ("None", "True", "False", "()", "{}"):
            assert of_python not in user.screen


async def test_a_setting_is_changed_in_the_app_and_kept(open_app: OpenApp) -> None:
    engine = FakeEngine()
    async with open_app(engine) as user:
        await user.says("/set sampling.temperature 0.25")
        await user.sees("Saved sampling.temperature.")
        await user.says("Hi")
        await user.sees("Hello.")
        await user.says("/set sampling.t")
        await user.sees("sampling.temperature = 0.25")
        await user.says("/set ctx many")
        await user.sees("ctx must be a whole number")
    request = engine.requests[-1]
    assert isinstance(request, Generate)
    assert request.sampling.temperature == 0.25
    assert paths.config_file().read_text() == "[sampling]\ntemperature = 0.25\n"


async def test_a_theme_is_kept(open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        user.pilot.app.theme = "nord"
        await user.sees("Saved app.theme.")
    assert config.load().app.theme == "nord"
    async with open_app(FakeEngine(), app=App(theme="nord")) as user:
        assert user.pilot.app.theme == "nord"
        await user.says("/set app.theme gruvbox")
        await user.sees("Saved app.theme.")
        await user.pilot.pause(0.5)
        assert user.screen.count("Saved app.theme.") == 1


async def test_keys_are_those_of_the_settings(open_app: OpenApp) -> None:
    async with open_app(FakeEngine(), app=App(keys={"chat.chats": "f9"})) as user:
        await user.pilot.press("f9")
        await user.sees("No chats yet")


async def form(user: User, words: str) -> None:
    """Open the settings and search them."""
    await user.pilot.press("f2")
    await user.sees("System prompt")
    if words:
        await user.pilot.press(*words)
        await user.until(lambda: "System prompt" not in user.screen, "found")


@pytest.mark.parametrize("size", [(40, 12), (120, 40)])
async def test_help_tells_the_keys_of_what_is_in_focus(
    open_app: OpenApp, size: tuple[int, int]
) -> None:
    async with open_app(FakeEngine(), size=size) as user:
        await user.pilot.press("f1")
        await user.sees("Enter sends; Shift+Enter")
        await user.pilot.press("f1")
        await user.until(lambda: "Enter sends; Shift+Enter" not in user.screen, "closed")
        await user.pilot.press("ctrl+r")
        await user.sees("No chats yet")
        await user.pilot.press("f1")
        await user.sees("Type to search all chats")
        await user.pilot.press("escape")
        await user.sees("No chats yet")


def test_the_form_has_every_setting() -> None:
    there = {field.key for field in settings_form.FIELDS} | {"personas", "app.keys"}
    assert there == set(config.flat(Settings()))
    assert all(binding.description for binding in settings_form.bindings())


async def test_settings_are_changed_in_a_form(open_app: OpenApp, home: Path) -> None:
    file = home / "config" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text("# mine\n[sampling]\ntemperature = 0.5  # warm\n")
    engine = FakeEngine()
    async with open_app(engine, sampling=config.load().sampling) as user:
        await form(user, "deterministic")
        await user.sees("Temperature  0.5")
        await user.pilot.press("enter")
        await user.sees("Enter saves")
        await user.pilot.press("backspace", "8", "enter")
        await user.sees("Temperature  0.8")
        await user.pilot.press("f8")
        await user.sees("Temperature  0.6")
        await user.pilot.press("escape")
    assert file.read_text() == "# mine\n[sampling]\n"


async def test_a_persona_is_made_and_answers(open_app: OpenApp) -> None:
    engine = FakeEngine()
    async with open_app(engine) as user:
        await form(user, "then")
        await user.sees("New persona")
        await user.pilot.press("enter")
        await user.sees("Name the persona")
        await user.pilot.press(*"Dr.Who", "space", *"[/x]", "enter")
        await user.sees("╭─ Dr.Who [/x] ─")
        await user.pilot.press(*"No", "escape")
        await user.sees("This text is not saved.")
        await user.pilot.press("enter", "backspace", "backspace")
        await user.pilot.press(*"Answer.in.riddles", "ctrl+s")
        await user.sees("Saved personas.Dr.Who [/x].")
        await user.pilot.press("escape")
        await user.says("/persona Dr.Who [/x]")
        await user.sees("Answer.in.riddles")
        await user.says("Hi")
        await user.sees("Hello.")
    request = engine.requests[-1]
    assert isinstance(request, Generate)
    assert request.turns[0] == Turn("system", "Answer.in.riddles")
    assert config.load().personas == {"Dr.Who [/x]": "Answer.in.riddles"}


async def test_keys_are_remapped_in_the_form(open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        await form(user, "chat.chats")
        await user.sees("Key: Chats  ctrl+r")
        await user.pilot.press("enter")
        await user.sees("Press the new key.")
        await user.pilot.press("ctrl+n")
        await user.sees("chat.chats, also “New”")
        await user.pilot.press("enter")
        await user.sees("Press the new key.")
        await user.pilot.press("f9")
        await user.sees("Key: Chats  f9")
        await user.pilot.press("escape", "f9")
        await user.sees("No chats yet")
    assert config.load().app.keys == {"chat.chats": "f9"}


async def test_what_is_chosen_already_is_pointed_at(open_app: OpenApp) -> None:
    """Enter twice changes nothing."""
    last = {
        field.key: field.choices[-1]
        for field in settings_form.FIELDS
        if field.kind == "choice" and field.choices
    }
    assert len(last) > 1
    changed = {"app.theme": "nord", "persona": "tutor", **last}
    config.change(Settings(), "personas.tutor", "You teach.")
    for key, value in changed.items():
        config.change(config.load(), key, value)
    written = paths.config_file().read_text()
    settings = {name: one for name, one in asdict(config.load()).items() if name != "model"}
    async with open_app(FakeEngine(), **settings) as user:
        for key in changed:
            await form(user, "")
            await user.types(key)
            await user.until(lambda: "System prompt" not in user.screen, "found")
            await user.pilot.press("enter")
            await user.until(lambda: isinstance(user.pilot.app.screen, ChoiceScreen), "choices")
            await user.pilot.press("enter")
            await user.until(lambda: isinstance(user.pilot.app.screen, SettingsScreen), "the form")
            assert paths.config_file().read_text() == written, key
            await user.pilot.press("escape")


async def test_a_theme_is_chosen_in_the_form(open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        await form(user, "theme")
        await user.pilot.press("enter")
        await user.sees("solarized-light")
        await user.pilot.press("home", "enter")
        await user.until(lambda: user.pilot.app.theme == "ansi-dark", "the theme")
    assert config.load().app.theme == "ansi-dark"


async def test_the_palette_has_what_the_keys_do(open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        await user.pilot.press("ctrl+r")
        await user.sees("No chats yet")
        await user.pilot.press("ctrl+p", *"archived")
        await user.sees("f5")
        await user.pilot.press("enter")
        await user.sees("No archived chats.")
        await user.pilot.press("escape", "ctrl+p", *"settings,")
        await user.sees("/settings [WORDS] Settings, personas")
        await user.pilot.press("enter")
        await user.sees("System prompt")
        await user.pilot.press("escape", "ctrl+p")
        spelled = [f"/{command.name} {command.argument}".strip() for command in COMMANDS]
        options = user.pilot.app.screen.query_one(OptionList)

        def listed() -> str:
            return "\n".join(str(option.prompt) for option in options.options)

        await user.until(lambda: all(f"{each}  " in listed() for each in spelled), "all")
        lines = listed().splitlines()
        keys = {line.split()[0]: key.strip() for line, key in pairwise(lines)}
        assert keys["/new"] == "^n"
        assert keys["/quit"] == "^q"
        assert keys["/copy"].startswith("/"), "ctrl+c copies a selection, not the last message"


async def test_what_keys_do_is_told_where_there_is_something(open_app: OpenApp) -> None:
    keys = {"ctrl+r": "F8 delete", "ctrl+o": "F8 forget", "f2": "F8 resets"}
    async with open_app(FakeEngine(["Hello."])) as user:
        for key, told in keys.items():
            await user.pilot.press(key, *"zz")
            await user.sees("Esc closes")
            assert told not in user.screen
            await user.pilot.press("escape")
        await user.says("I moved to Oslo")
        await user.sees("Hello.")
        for key, told in keys.items():
            await user.pilot.press(key)
            await user.sees(told)
            await user.pilot.press("escape")


DRAWN = {chr(code) for code in range(0x2500, 0x25A0)}
REPLY = "# Title\n\n> quoted\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n---\n\n```\ncode\n```\nEnd."


async def test_in_linear_mode_text_tells_which_line_is_pointed_at(
    open_app: OpenApp, chats: Chats
) -> None:
    for title in ("First", "Second"):
        chats.rename(long_chats.write(chats, ["Hi", "Hello."]), title)

    def pointed(user: User) -> list[str]:
        lines = [line.strip() for line in user.screen.splitlines()]
        return [line[1:].strip().split("  ")[0] for line in lines if line.startswith("> ")]

    async with open_app(FakeEngine(), app=App(linear=True)) as user:
        await user.pilot.press("ctrl+r")
        await user.until(lambda: pointed(user) == ["Second"], "the latest chat")
        await user.pilot.press("down")
        await user.until(lambda: pointed(user) == ["First"], "the one below")
        await user.pilot.press("f8")
        await user.until(lambda: pointed(user)[-1:] == ["Keep it"], "the first answer")
        await user.pilot.press("down")
        await user.until(lambda: pointed(user)[-1:] == ["Delete it"], "the second one")
        await user.pilot.press("escape", "escape", *"/re")
        await user.until(lambda: pointed(user) == ["/rename TITLE"], "a command")
        await user.pilot.press("escape", "ctrl+p", "down")
        await user.until(lambda: pointed(user)[:1] == ["/answer"], "the second of all commands")
        await user.pilot.press(*"theme", "enter")
        await user.sees("Search for themes…")
        await user.until(lambda: pointed(user)[:1] == ["ansi-dark"], "the first theme")
        await user.pilot.press("end")
        await user.until(lambda: pointed(user)[:1] == ["tokyo-night"], "the last one")


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


def test_half_a_character_is_no_reason_to_lose_a_setting(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    settings = config.change(Settings(), "system", "Be kind \udcff", path)
    assert settings.system == "Be kind ?"
    assert "Be kind" in path.read_text(encoding="utf-8")
