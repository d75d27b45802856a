"""Choosing a model in the terminal app: on disk, from the catalogue, and changing one's mind."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import tiny_model
from terminal_user import User, at_the_terminal
from textual import events

from ondevice import config, gguf, models, paths
from ondevice.chats import Chats
from ondevice.errors import DownloadCancelled, DownloadError, OndeviceError, PackCancelled
from ondevice.holding import speeds
from ondevice.messages import Load
from ondevice.models import InstalledModel, PullProgress
from ondevice.planning import measuring, replies
from ondevice.planning.choice import choose
from ondevice.ram import available
from ondevice.ram.available import AvailableRam
from ondevice.system.cores import ThreadTimes
from ondevice.testing import FakeEngine, Gate
from tui import slowness

DEFAULT = "smollm2-135m"


def on_disk(name: str) -> InstalledModel:
    """Put a file where a model of this name belongs."""
    path = paths.ensure_private(paths.models_dir() / name) / f"{name}.gguf"
    tiny_model.write(path)
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
        folder = paths.ensure_private(paths.models_dir() / name)
        kept = folder / f"{name}.part"
        kept.write_bytes(b"")
        os.truncate(kept, 46_000_000)
        on_progress(PullProgress(46_000_000, 92_000_000))
        while not self.gate.opened(0.01):
            if cancel.is_set():
                raise DownloadCancelled
        if self.error:
            raise self.error
        kept.unlink()
        return on_disk(name)


async def test_the_first_start_offers_to_fetch_the_model_and_loads_it(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = Download(monkeypatch)
    engine = FakeEngine(["Hello!"])
    async with at_the_terminal(engine, chats, DEFAULT) as user:
        await user.sees("is not downloaded yet")
        await user.sees("SmolLM2 135M Instruct")
        await user.sees("98 MB")
        assert "Apache-2.0" in user.screen
        await user.pilot.press("enter")
        await user.sees("50%")
        download.gate.open()
        await user.until(lambda: engine.loaded is not None, "loaded")
        await user.says("Hi")
        await user.sees("Hello!")


@pytest.mark.parametrize("size", [(40, 12), (80, 24)])
async def test_the_first_time_tells_what_is_private_and_which_model_fits(
    chats: Chats, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    ram = AvailableRam(8_000_000_000, 4_000_000_000, "all RAM of this machine")
    monkeypatch.setattr(available, "look", lambda: ram)
    Download(monkeypatch).gate.open()
    engine = FakeEngine()
    async with at_the_terminal(engine, chats, "auto", first=True, size=size) as user:
        await user.sees("What you write stays on this device")
        assert not engine.requests
        await user.pilot.press("enter")
        await user.sees("★ Qwen3.5")
        assert "Enter downloads it" in user.screen
        await user.pilot.press(*"135", "enter")
        await user.until(lambda: engine.loaded is not None, "loaded")


async def test_a_download_is_paused_and_goes_on(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = Download(monkeypatch)
    engine = FakeEngine()
    async with at_the_terminal(engine, chats, DEFAULT) as user:
        await user.sees("is not downloaded yet")
        await user.sees("Enter downloads it")  # the list is there
        await user.pilot.press("enter")
        await user.sees("50% of 92 MB")
        await user.sees("F2 pauses")
        await user.pilot.press("f2")
        await user.sees("paused, 46 MB")
        await user.sees("Enter resumes the download")
        download.gate.open()
        await user.pilot.press("f2")
        await user.until(lambda: engine.loaded is not None, "loaded")
    assert choose(config.load()).model.name == DEFAULT


async def test_a_download_goes_on_when_the_screen_is_closed(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = on_disk("first")
    download = Download(monkeypatch)
    engine = FakeEngine()
    async with at_the_terminal(engine, chats, first.name) as user:
        await user.until(lambda: engine.loaded is not None, "loaded")
        await user.pilot.press("ctrl+l")
        await user.sees("not downloaded")
        await user.pilot.press(*"smollm2-135m")
        await user.until(lambda: "│ first" not in user.screen, "one model")
        await user.pilot.press("enter")
        await user.sees("50%")
        await user.pilot.press("escape")
        download.gate.open()
        await user.sees("smollm2-135m is ready.")
        assert engine.loaded is not None
        assert engine.loaded.path == str(first.path)


async def test_what_is_left_of_a_download_can_be_removed(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    Download(monkeypatch)
    async with at_the_terminal(FakeEngine(), chats, DEFAULT) as user:
        await user.sees("is not downloaded yet")
        await user.sees("Enter downloads it")  # the list is there
        await user.pilot.press("enter")
        await user.sees("50%")
        await user.pilot.press("f8")
        await user.sees("Remove SmolLM2 135M Instruct (46 MB)")
        await user.pilot.press("down", "enter")
        await user.sees("not downloaded")
        assert models.leftovers() == {}


@pytest.mark.parametrize("named_alike", [True, False])
async def test_what_is_done_to_a_model_is_done_to_the_one_pointed_at_whatever_its_name(
    chats: Chats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named_alike: bool
) -> None:
    ours = on_disk("same" if named_alike else "another")
    (tmp_path / "folder").mkdir()
    theirs = tiny_model.write(tmp_path / "folder" / "same.gguf")
    packed: list[object] = []

    def pack(model: object, *_: object) -> InstalledModel:
        packed.append(model)
        return ours

    monkeypatch.setattr(models, "pack", pack)
    async with at_the_terminal(FakeEngine(), chats, ours.name) as user:
        await user.until(lambda: "ctx" in user.status, "loaded")
        await user.pilot.press("ctrl+l")
        await user.sees("in use")
        await user.pilot.press(*str(theirs.parent))
        await user.sees("your folder")
        assert "F8" not in user.screen
        await user.pilot.press("f8")
        await user.sees("was not removed")
        assert "Remove" not in user.screen
        await user.pilot.press("f3")
        await user.sees("Make a stack of same?")
        await user.pilot.press("down", "enter")
        await user.sees("ready")
    (model,) = packed
    assert isinstance(model, InstalledModel)
    assert model.path == theirs
    assert ours.path.exists()


async def test_what_is_left_of_packing_can_be_removed_and_the_model_stays(chats: Chats) -> None:
    model = on_disk("first")
    left = paths.ensure_private(paths.models_dir() / models.stack_name(model.name)) / "some.part"
    left.write_bytes(bytes(5_000_000))
    async with at_the_terminal(FakeEngine(), chats, model.name) as user:
        await user.until(lambda: "ctx" in user.status, "loaded")
        await user.pilot.press("ctrl+l")
        await user.sees("F8 discards the packing")
        await user.pilot.press("f8")
        await user.sees("Remove what has been packed of first (5 MB) from the disk?")
        await user.pilot.press("down", "enter")
        await user.sees("F8 removes")
    assert models.leftovers() == {}
    assert model.path.exists()


@pytest.mark.parametrize("linear", [True, False])
async def test_the_columns_of_the_list_stand_below_their_names(chats: Chats, linear: bool) -> None:
    model = on_disk("first")
    async with at_the_terminal(
        FakeEngine(), chats, model.name, app=config.App(linear=linear)
    ) as user:
        await user.until(lambda: "ctx" in user.status, "loaded")
        await user.pilot.press("ctrl+l")
        await user.sees("not downloaded")
        lines = user.screen.splitlines()
        names = next(line for line in lines if "Quality" in line)
        below = next(line for line in lines if line.rstrip(" │").endswith("not downloaded"))
        assert names.index("State") == below.index("not downloaded")


async def test_the_planner_says_how_each_model_would_run(
    chats: Chats, default_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ram = AvailableRam(1_000_000_000, 500_000_000, "all RAM of this machine")
    monkeypatch.setattr(available, "look", lambda: ram)
    there = paths.ensure_private(paths.models_dir() / DEFAULT) / default_model.name
    there.symlink_to(default_model)
    on_disk("broken").path.write_bytes(b"")
    engine = FakeEngine()
    async with at_the_terminal(engine, chats, DEFAULT, size=(100, 40)) as user:
        await user.until(lambda: engine.loaded is not None, "loaded")
        await user.pilot.press("ctrl+l")
        await user.sees("Recommended for this machine: SmolLM2 135M Instruct")
        await user.sees("≈133M  in use")
        await user.sees("About as good as an unquantized 133M model")
        await user.sees("all in RAM")
        await user.pilot.press(*"broken")
        await user.sees("cannot run")
        await user.pilot.press("ctrl+u", *"30b")
        await user.sees("GB of it streamed from the disk")


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
async def test_a_model_is_packed_until_the_user_stops_it(
    chats: Chats, short: Path, children: Callable[[], list[psutil.Process]]
) -> None:
    folder = paths.ensure_private(paths.models_dir() / "tiny")
    shutil.copy(short, folder / "tiny.gguf")  # a tiny one may be packed before anybody sees it
    engine = FakeEngine()
    async with at_the_terminal(engine, chats, "tiny") as user:
        await user.until(lambda: engine.loaded is not None, "loaded")
        await user.pilot.press("ctrl+l")
        await user.sees("in use")
        await user.pilot.press(*"tiny", "f3")
        await user.sees("Make a stack of tiny?")
        await user.pilot.press("down", "enter")
        await user.sees("packing 1/4")
        await user.sees("F2 pauses")
        await user.pilot.press("f2")
        await user.sees("in use")
    assert not [c for c in children() if "ondevice.models._pack_child" in c.cmdline()]


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_a_model_is_packed_in_a_process_of_its_own() -> None:
    source = tiny_model.write(paths.ensure_private(paths.models_dir() / "tiny") / "tiny.gguf")
    seen: list[str] = []
    text = "The museum opens at nine. In the first room there is a clock.\n" * 5
    stack = models.pack(str(source), lambda news: seen.append(news.stage), calibration=text)
    assert stack == models.find("tiny-stack")
    assert gguf.read(stack.path).is_stack
    assert seen[-1] == "writing"
    assert models.leftovers() == {}


def test_packing_can_be_cancelled() -> None:
    source = tiny_model.write(paths.ensure_private(paths.models_dir() / "tiny") / "tiny.gguf")
    cancel = threading.Event()
    with pytest.raises(PackCancelled):
        # With as much to read, it is not done before it hears of that.
        text = "The museum opens at nine. In the first room there is a clock.\n" * 500
        models.pack(str(source), lambda _: cancel.set(), cancel, text)
    assert [model.name for model in models.installed()] == ["tiny"]


async def test_where_there_is_nothing_to_pause_it_says_what_can_be_done(chats: Chats) -> None:
    model = on_disk("first")
    async with at_the_terminal(FakeEngine(), chats, model.name) as user:
        await user.until(lambda: "ctx" in user.status, "loaded")
        await user.pilot.press("ctrl+l")
        await user.sees("in use")
        await user.pilot.press("f2")
        await user.sees("Press F3 to pack")


@pytest.mark.parametrize("size", [(40, 12), (60, 20), (80, 24)])
async def test_a_download_that_fails_says_why_and_what_to_do(
    chats: Chats, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    why = (
        "The hub at https://huggingface.co cannot be reached, or stopped answering: [Errno -2] "
        "Name or service not known. Check the network, the proxy and HF_ENDPOINT, then try again."
    )
    Download(monkeypatch, DownloadError(why)).gate.open()
    async with at_the_terminal(FakeEngine(), chats, DEFAULT, size=size) as user:
        await user.sees("Enter downloads it")  # the list is there
        await user.pilot.press("enter")
        words = "".join(why[-30:].split())  # wherever its lines are broken
        await user.until(lambda: words in "".join(user.screen.replace("│", "").split()), "its end")


async def test_a_download_that_fails_unseen_says_so(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = on_disk("first")
    download = Download(monkeypatch, DownloadError("The network is down. Try again."))
    async with at_the_terminal(FakeEngine(), chats, first.name) as user:
        await user.pilot.press("ctrl+l")
        await user.sees("not downloaded")
        await user.pilot.press(*DEFAULT)
        await user.until(lambda: "│ first" not in user.screen, "one model")
        await user.pilot.press("enter")
        await user.sees("50%")
        await user.pilot.press("escape")
        download.gate.open()
        told = "The download of smollm2-135m stopped: The network is down. Try again."
        words = "".join(told.split())  # wherever its lines are broken
        await user.until(lambda: words in "".join(user.screen.replace("▌", "").split()), told)


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


# ------------------------------------------------------------------ paths and folders


async def paste(user: User, text: str) -> None:
    """Into whatever has the focus."""
    user.pilot.app.post_message(events.Paste(text))
    await user.pilot.pause()


async def test_a_path_is_typed_and_loaded_and_then_in_the_list(
    chats: Chats, tmp_path: Path
) -> None:
    first = on_disk("first")
    other = tiny_model.write(tmp_path / "my other.gguf")
    engine = FakeEngine()
    async with at_the_terminal(engine, chats, first.name, size=(140, 40)) as user:
        await user.until(lambda: engine.loaded is not None, "loaded")
        await user.pilot.press("ctrl+l")
        await user.sees("● first")
        await paste(user, f"'{tmp_path / 'nothing'}'")
        await user.sees("There is no file or folder")
        await user.pilot.press("ctrl+u")
        await paste(user, other.as_uri())
        await user.sees("my other")
        await user.pilot.press("enter")
        await user.until(lambda: engine.loaded and engine.loaded.path == str(other), "loaded")
        await user.pilot.press("ctrl+l")
        await user.sees("● my other")
    assert choose(config.load()).model.path == other


async def test_a_folder_is_typed_and_kept_whatever_lies_in_it(chats: Chats, tmp_path: Path) -> None:
    first = on_disk("first")
    folder = tmp_path / "my models"
    for place in ("a", "b/c"):
        (folder / place).mkdir(parents=True)
        tiny_model.write(folder / place / f"model-{place[0]}.gguf")
    tiny_model.write(folder / "goes-on.gguf", template="")
    tiny_model.write(folder / "vectors.gguf", architecture="bert")
    (folder / "page.gguf").write_text("<html>")
    (folder / "lost.gguf").symlink_to(folder / "nowhere")
    engine = FakeEngine()
    async with at_the_terminal(engine, chats, first.name, size=(140, 40)) as user:
        await user.until(lambda: engine.loaded is not None, "loaded")
        await user.pilot.press("ctrl+l")
        await user.sees("● first")
        await paste(user, f"{folder}/")
        for words in ("model-a", "model-b", "base model", "cannot run"):
            await user.sees(words)
        assert "vectors" not in user.screen
        await user.pilot.press("up", "enter")
        await user.sees("Saved models_folder.")
        await user.pilot.press("ctrl+l")
        await user.sees("model-b")
    settings = config.load()
    assert settings.folders == (folder,)
    assert models.find("model-b").path == folder / "b/c/model-b.gguf"
    assert {m.name for m in models.installed()} >= {"model-a", "model-b", "goes-on", "page"}
    assert choose(settings, "auto").model.name in ("first", "model-a", "model-b")


async def test_a_model_is_set_by_its_path(chats: Chats, tmp_path: Path) -> None:
    first = on_disk("first")
    other = tiny_model.write(tmp_path / "other.gguf")
    engine = FakeEngine()
    async with at_the_terminal(engine, chats, first.name) as user:
        await user.until(lambda: engine.loaded is not None, "loaded")
        user.prompt.text = f"/set model {tmp_path / 'none.gguf'}"
        await user.prompt.action_send()
        await user.sees("There is no")
        user.prompt.text = f'/set model "{other}"'
        await user.prompt.action_send()
        await user.until(lambda: engine.loaded and engine.loaded.path == str(other), "loaded")
    assert config.load().model == str(other)


# ------------------------------------------------------------------ a message without a model


async def test_a_message_loads_the_model_or_stays_in_the_prompt(chats: Chats) -> None:
    model = on_disk("slow")
    gate = Gate()
    engine = FakeEngine(["Here."], loads=[[0.1, Gate()], [0.2, Gate()], [0.3, gate]])
    async with at_the_terminal(engine, chats, model.name) as user:
        await user.sees("loading 10%")
        await user.pilot.press("escape")
        await user.until(lambda: "no model" in user.status, "no model")
        await user.says("Hi there")
        await user.sees("loading 20%")
        await user.pilot.press("escape")
        await user.until(lambda: user.prompt.text == "Hi there", "the message")
        await user.pilot.press("enter")
        await user.sees("loading 30%")
        gate.open()
        await user.sees("Here.")
    assert [message.content for message in chats.load(chats.headings()[0].id).messages] == [
        "Hi there",
        "Here.",
    ]


async def test_a_message_that_waits_for_a_load_comes_back_if_that_is_stopped(
    chats: Chats,
) -> None:
    engine = FakeEngine(["Here."], loads=[[0.1, Gate()], [1.0]])
    async with at_the_terminal(engine, chats, on_disk("slow").name) as user:
        await user.sees("loading 10%")
        await user.says("Hi there")
        await user.sees("▌  Hi there")  # it waits
        await user.pilot.press("escape")
        await user.until(lambda: user.prompt.text == "Hi there", "the message")
        await user.pilot.press("enter")
        await user.sees("Here.")
    shown = chats.load(chats.headings()[0].id).messages
    assert [message.content for message in shown] == ["Hi there", "Here."]


async def test_escape_right_behind_a_message_stops_the_load_and_keeps_the_message(
    chats: Chats,
) -> None:
    """Where the one has not been taken up yet, it does not begin another load."""
    engine = FakeEngine(["Here."], loads=[[0.1, Gate()], [1.0]])
    async with at_the_terminal(engine, chats, on_disk("slow").name) as user:
        await user.sees("loading 10%")
        await user.types("Hi there\r\x1b")
        await user.until(lambda: "no model" in user.status, "no model")
        await user.is_idle()
        assert "no model" in user.status
        await user.sees("Hi there")  # in the prompt or, without a reply, in the chat


async def test_a_message_that_waits_for_a_load_waits_for_a_reply_as_well(chats: Chats) -> None:
    """One that was asked for after it, while the model was loaded."""
    model, gate = on_disk("slow"), Gate()
    engine = FakeEngine(["Again."], ["Here."], loads=[[0.1, Gate()], [0.2, gate]])
    chats.say(id_ := chats.create(), "Earlier")
    async with at_the_terminal(engine, chats, model.name, chats.load(id_)) as user:
        await user.sees("loading 10%")
        await user.pilot.press("escape")
        await user.until(lambda: "no model" in user.status, "no model")
        await user.says("Hi there")
        await user.sees("loading 20%")
        await user.says("/continue")
        await user.sees("   …")  # a reply is to come
        gate.open()
        await user.sees("Here.")
        await user.is_idle()
    said = [message.content for message in chats.load(id_).messages]
    assert said == ["Earlier", "Again.", "Hi there", "Here."]


class Endless:
    """Stands in for work that goes on until it is cancelled."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0

    def __call__(self, *given: object) -> None:
        self.begun += 1
        cancel = next(each for each in given if isinstance(each, threading.Event))
        assert cancel.wait(60)
        self.cancelled += 1
        raise OndeviceError("It was cancelled.")


@pytest.mark.parametrize("what", ["pull", "pack", "measure"])
async def test_quitting_ends_what_is_under_way_with_models(
    chats: Chats, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    work = Endless()
    monkeypatch.setattr(measuring if what == "measure" else models, what, work)
    async with at_the_terminal(FakeEngine(), chats, on_disk("first").name) as user:
        await user.pilot.press("ctrl+l")
        await user.sees("Enter loads it")
        if what == "measure":
            await user.pilot.press("f5")
        elif what == "pack":
            await user.pilot.press("f3")
            await user.sees("Pack it")
            await user.pilot.press("down", "enter")
        else:
            await user.pilot.press(*"135m")
            await user.sees("Enter downloads it")
            await user.pilot.press("enter")
        await user.until(lambda: work.begun > 0, "a beginning")
        await user.pilot.press("ctrl+q")
    assert (work.begun, work.cancelled) == (1, 1)


async def test_a_machine_is_measured_once_also_where_the_list_is_closed_and_opened_again(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, begun = Gate(), []

    def measure(_: threading.Event) -> speeds.Speeds:
        begun.append(True)
        assert gate.opened(60)
        return speeds.USUAL

    monkeypatch.setattr(measuring, "measure", measure)
    async with at_the_terminal(FakeEngine(), chats, on_disk("first").name) as user:
        await user.pilot.press("ctrl+l")
        await user.sees("Enter loads it")
        await user.pilot.press("f5")
        await user.sees("about 15 seconds")
        await user.pilot.press("escape")
        await user.until(lambda: "Enter loads it" not in user.screen, "the chat")
        await user.pilot.press("ctrl+l")
        await user.sees("Enter loads it")
        await user.pilot.press("f5")
        await user.sees("is already being")
        gate.open()
        await user.sees("This machine is measured.")
    assert begun == [True]


async def test_a_failed_download_stays_in_view_where_its_error_takes_room(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = Download(monkeypatch, DownloadError("It failed. " + "There is a reason. " * 6))
    model = on_disk("first").name
    async with at_the_terminal(FakeEngine(), chats, model, size=(40, 12)) as user:
        await user.pilot.press("ctrl+l")
        await user.sees("Bonsai 1.7B")
        await user.pilot.press("down", "down", "down", "enter")
        await user.sees("F2 pauses")
        download.gate.open()
        await user.sees("Failed: It failed.")
        await user.sees("Bonsai 1.7B")


async def test_what_there_is_no_room_for_beside_the_list_is_told_by_a_key(chats: Chats) -> None:
    model = on_disk("first")
    async with at_the_terminal(FakeEngine(), chats, model.name, size=(60, 14)) as user:
        await user.pilot.press("ctrl+l")
        await user.sees("F4 details")
        assert "good as an unquantized" not in user.screen
        await user.pilot.press("f4")
        await user.sees("good as an unquantized")
        await user.pilot.press("enter")
        await user.sees("F4 details")


async def test_where_there_is_no_model_the_message_waits_in_the_prompt(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = Download(monkeypatch)
    engine = FakeEngine(["Here."])
    async with at_the_terminal(engine, chats, "auto") as user:
        await user.sees("No model is downloaded yet.")
        await user.pilot.press("escape")
        await user.says("Hi there")
        await user.sees("No model is downloaded yet.")
        await user.pilot.press("escape")
        assert user.prompt.text == "Hi there"
        await user.pilot.press("ctrl+l", *"135m")
        await user.sees("SmolLM2 135M")
        await user.pilot.press("enter")
        download.gate.open()
        await user.until(lambda: engine.loaded is not None, "loaded")
        assert user.prompt.text == "Hi there"


async def test_what_slows_a_reply_down_is_named(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEngine, "pid", os.getpid())
    monkeypatch.setattr(slowness, "_EVERY", 0.0)
    monkeypatch.setattr(ThreadTimes, "waited_share", lambda *_: 0.6)
    model = on_disk("first")
    held = replies.held(Load(path=str(model.path)), None)
    replies.record(held, 100, 10_000_000.0, 0.0)
    gate = Gate()
    engine = FakeEngine(["One ", "two ", gate, "three ", Gate()])
    async with at_the_terminal(engine, chats, model.name, size=(100, 24)) as user:
        await user.says("Hi")
        await user.sees("One")
        await user.pilot.pause(0.3)  # a speed means something after a fifth of a second
        gate.open()
        await user.sees("other programs use the processor")
        await user.sees("of 10000000 tok/s")
        await user.pilot.press("escape")
