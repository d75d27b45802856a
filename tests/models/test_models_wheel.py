"""Fetching models that a wheel carries from an index on loopback."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hub_server
import msgspec
import platformdirs
import psutil
import pytest
import tiny_model
from hub_server import Hub

from ondevice import models, paths
from ondevice.errors import DiskSpaceError, DownloadCancelled, DownloadError
from ondevice.models import PullProgress, Recipe, _index
from ondevice.models._records import HubSource, WheelSource

MEMBER = "weights/tiny.gguf"
WHEEL = "weights-1.0-py3-none-any.whl"
Children = Callable[[], list[psutil.Process]]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_model.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf").read_bytes()


@pytest.fixture
def index(weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # which this machine is not asked for
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")  # for the hub's own library
    with hub_server.running() as index:
        wheel = hub_server.wheel(tmp_path, MEMBER, weights)
        index.wheels[WHEEL] = wheel
        monkeypatch.setenv("PIP_INDEX_URL", f"{index.endpoint}/simple/")
        monkeypatch.setenv("HF_ENDPOINT", index.endpoint)
        yield index


@pytest.fixture(autouse=True)
def recipe(weights: bytes, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A catalogue of one model."""
    return offer(monkeypatch, wheel_source(weights), size_bytes=len(weights))


def wheel_source(weights: bytes) -> WheelSource:
    digest = hashlib.sha256(weights).hexdigest()
    return WheelSource(package="weights", version="1.0", member=MEMBER, sha256=digest)


def offer(
    monkeypatch: pytest.MonkeyPatch, *sources: WheelSource | HubSource, size_bytes: int
) -> Recipe:
    recipe = Recipe(
        name="tiny",
        title="Tiny",
        parameters="0.1M",
        quantization="Q8_0",
        size_bytes=size_bytes,
        context=256,
        license="MIT",
        good_at="tests",
        sources=sources,
    )
    for module in ("_pull", "_library"):
        monkeypatch.setattr(f"ondevice.models.{module}.catalogue", lambda: (recipe,))
    return recipe


def files_in_home() -> list[str]:
    found = (path for path in paths.models_dir().rglob("*") if path.is_file())
    return sorted(path.name for path in found if path.parent.name != ".locks")


def test_weights_in_a_wheel_are_fetched_once(index: Hub, weights: bytes) -> None:
    news: list[PullProgress] = []
    model = models.pull("tiny", news.append)
    assert (model.name, model.license, model.origin) == ("tiny", "MIT", "weights==1.0")
    assert model.path.read_bytes() == weights
    assert news[-1] == PullProgress(len(weights), len(weights))
    assert models.pull("tiny") == models.find("tiny") == model
    assert len(index.asked) == 1
    assert files_in_home() == ["provenance.json", "tiny.gguf"]


def test_a_cancelled_download_ends_at_once_and_goes_on_later(
    index: Hub, weights: bytes, children: Children
) -> None:
    index.holds_at = 100_000
    cancel = threading.Event()

    def cancel_soon(news: PullProgress) -> None:
        if index.held.is_set() and news.done_bytes:
            cancel.set()

    with pytest.raises(DownloadCancelled):
        models.pull("tiny", cancel_soon, cancel)
    assert not children()
    assert models.installed() == []
    there = models.leftovers()["tiny"]
    assert 0 < there <= 100_000
    index.holds_at = None
    assert models.pull("tiny").path.read_bytes() == weights
    assert index.asked[-1].start == there
    assert files_in_home() == ["provenance.json", "tiny.gguf"]


def test_another_wheel_is_not_mixed_with_the_old_one(
    index: Hub, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.cuts = [100_000, *[0] * 20]
    with pytest.raises(DownloadError):
        models.pull("tiny")
    assert models.leftovers() == {"tiny": 100_000}
    index.cuts = []
    other = weights[:-1] + bytes([weights[-1] ^ 1])
    index.wheels[WHEEL] = hub_server.wheel(tmp_path, MEMBER, other)
    offer(monkeypatch, wheel_source(other), size_bytes=len(weights))
    assert models.pull("tiny").path.read_bytes() == other
    assert index.asked[-1].start == 0
    assert files_in_home() == ["provenance.json", "tiny.gguf"]


def test_a_wheel_that_had_come_whole_is_not_fetched_again(index: Hub, weights: bytes) -> None:
    wheel = index.wheels[WHEEL]
    index.cuts = [len(wheel) - 1, *[0] * 20]
    with pytest.raises(DownloadError):
        models.pull("tiny")
    (part,) = paths.models_dir().glob("tiny/*.part")
    with part.open("ab") as file:  # it was killed right behind the last byte
        file.write(wheel[-1:])
    index.cuts = []
    assert models.pull("tiny").path.read_bytes() == weights
    assert [asked.start for asked in index.asked[-1:]] == [len(wheel)]
    assert files_in_home() == ["provenance.json", "tiny.gguf"]


def test_nothing_is_left_of_a_source_that_failed_once_another_has_the_model(
    index: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_hub = HubSource(repo="someone/Tiny", file="tiny.gguf")
    offer(monkeypatch, on_hub, wheel_source(weights), size_bytes=len(weights))
    part = paths.models_dir() / "tiny/tiny.gguf.0123456789abcdef.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(weights[:1000])  # came from the hub, which has it no more
    assert models.pull("tiny").origin == "weights==1.0"
    assert files_in_home() == ["provenance.json", "tiny.gguf"]


def test_who_waits_and_gives_up_does_not_disturb_who_fetches(index: Hub, weights: bytes) -> None:
    index.holds_at = 100_000
    cancel = threading.Event()
    with ThreadPoolExecutor() as threads:
        first = threads.submit(models.pull, "tiny")
        assert index.held.wait(60)
        with pytest.raises(DownloadCancelled):
            models.pull("tiny", lambda _: cancel.set(), cancel)
        index.gate.set()
        assert first.result(60).path.read_bytes() == weights


def test_weights_that_were_changed_are_refused(index: Hub, weights: bytes, tmp_path: Path) -> None:
    index.wheels[WHEEL] = hub_server.wheel(tmp_path, MEMBER, weights[:-1] + b"?")
    with pytest.raises(
        DownloadError, match=r"another file than it should|is not the expected file"
    ):
        models.pull("tiny")
    assert files_in_home() == []


def test_a_wheel_that_was_changed_is_not_even_opened(
    index: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.wheel_claims[WHEEL] = "0" * 64
    with pytest.raises(
        DownloadError, match=r"another file than it should|is not the expected file"
    ):
        models.pull("tiny")
    pinned = msgspec.structs.replace(wheel_source(weights), wheel_sha256="1" * 64)
    offer(monkeypatch, pinned, size_bytes=len(weights))
    index.wheel_claims.clear()
    with pytest.raises(DownloadError, match="1111"):
        models.pull("tiny")
    assert files_in_home() == []


def edited(wheel: bytes, at: int, value: bytes) -> bytes:
    """``wheel`` with a field of the member's entry changed, in the file's own place and the list.

    ``at`` counts from the flags, which come earlier in the one than in the other.
    """
    changed = bytearray(wheel)
    listed = wheel.index(b"PK\x01\x02")
    changed[6 + at : 6 + at + len(value)] = value
    changed[listed + 8 + at : listed + 8 + at + len(value)] = value
    return bytes(changed)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda wheel: edited(wheel, 0, b"\x01"),  # encrypted
        lambda wheel: edited(wheel, 2, b"\x63"),  # an unknown method
        lambda wheel: edited(wheel, 2, b"\x0e"),  # LZMA
        lambda wheel: edited(wheel, 2, b"\x08"),  # what is not deflated
        lambda wheel: edited(wheel, 16, b"\xff\xff\xff\x7f"),  # larger than it should be
        lambda wheel: wheel[:-30],
        lambda _: b"no archive",
    ],
)
def test_a_wheel_that_is_none_is_refused(
    index: Hub, spoil: Callable[[bytes], bytes], weights: bytes
) -> None:
    index.wheels[WHEEL] = spoil(index.wheels[WHEEL])
    with pytest.raises(DownloadError, match=f"does not contain {MEMBER}"):
        models.pull("tiny")
    assert files_in_home() == []


def test_a_wheel_without_the_weights_is_refused(index: Hub, tmp_path: Path) -> None:
    index.wheels[WHEEL] = hub_server.wheel(tmp_path, "other", b"")
    with pytest.raises(DownloadError, match=f"does not contain {MEMBER}"):
        models.pull("tiny")


def test_a_wheel_without_end_is_left(index: Hub) -> None:
    index.wheels[WHEEL] = bytes(12_000_000)
    with pytest.raises(DownloadError, match="more than 10 MB"):
        models.pull("tiny")
    assert files_in_home() == []


def test_a_download_that_breaks_goes_on(index: Hub, weights: bytes) -> None:
    index.speaks_json = True
    index.statuses = [503]
    index.cuts = [40_000, 30_000]
    assert models.pull("tiny").path.read_bytes() == weights
    assert [asked.start for asked in index.asked] == [0, 0, 40_000, 70_000]


def test_an_index_without_the_wheel_is_named(index: Hub) -> None:
    index.wheels.clear()
    with pytest.raises(DownloadError, match=r"127.0.0.1 does not have it.*PIP_INDEX_URL"):
        models.pull("tiny")
    assert files_in_home() == []


def test_the_index_is_the_one_that_pip_or_uv_use(
    index: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{index.endpoint}/simple"
    monkeypatch.delenv("PIP_INDEX_URL")
    file = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "file:///nowhere")
    file.write_text(f"[global]\nindex-url = {url}\nfind-links = /nowhere\n")
    assert models.pull("tiny").origin == "weights==1.0"
    models.remove("tiny")
    file.write_text(f"[global]\nindex-url = http://127.0.0.1:9/\n  \nextra-index-url =\n  {url}\n")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL")
    assert models.pull("tiny").origin == "weights==1.0"
    models.remove("tiny")
    file.write_text("[global")
    monkeypatch.setenv("UV_DEFAULT_INDEX", url)
    assert models.pull("tiny").origin == "weights==1.0"
    models.remove("tiny")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DownloadError, match="no index"):
        models.pull("tiny")


def test_a_user_without_a_home_has_the_index_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def homeless(*_: object, **__: object) -> Path:
        raise RuntimeError("could not determine the home directory")

    for owner, name in ((Path, "home"), (platformdirs, "user_config_path")):
        monkeypatch.setattr(owner, name, homeless)
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    assert _index.settings().indexes[0] == "https://index.example/simple/"


def test_a_disk_that_is_too_small_is_found_before(
    index: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, wheel_source(weights), size_bytes=10**18)
    with pytest.raises(DiskSpaceError, match="is free"):
        models.pull("tiny")
    assert index.asked == []


def test_the_next_source_is_tried_when_one_fails(
    index: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_hub = HubSource(repo="someone/Tiny", file="tiny.gguf")
    offer(monkeypatch, on_hub, wheel_source(weights), size_bytes=len(weights))
    assert models.pull("tiny").origin == "weights==1.0"
    models.remove("tiny")
    index.wheels.clear()
    with pytest.raises(DownloadError, match=r"(?s)has no .*weights 1.0 cannot be downloaded"):
        models.pull("tiny")
    index.files["someone/Tiny/tiny.gguf"] = weights
    assert models.pull("tiny").origin == "someone/Tiny/tiny.gguf"


def test_a_hub_file_that_is_not_the_one_of_the_catalogue_is_refused(
    index: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = HubSource(repo="someone/Tiny", file="tiny.gguf", sha256="0" * 64)
    offer(monkeypatch, source, size_bytes=len(weights))
    index.files["someone/Tiny/tiny.gguf"] = weights
    with pytest.raises(DownloadError, match="is not the expected file"):
        models.pull("tiny")
    assert index.asked == []
