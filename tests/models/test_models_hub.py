"""Fetching models from the Hugging Face hub, from a server on loopback that answers like it."""

from __future__ import annotations

import hashlib
import io
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import hub_server
import numpy as np
import psutil
import pytest
import tiny_model
from hub_server import Hub

from ondevice import models, paths
from ondevice.errors import (
    DiskSpaceError,
    DownloadCancelled,
    DownloadError,
    ModelError,
    ModelFileError,
    ModelNotFound,
    UsageError,
)
from ondevice.models import PullProgress, _hub
from ondevice.models._meter import Meter
from ondevice.models._records import HubSource, Provenance

FILE = "someone/Tiny-GGUF/tiny-Q8_0.gguf"
NAME = "tiny-Q8_0"
Children = Callable[[], list[psutil.Process]]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_model.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf").read_bytes()


@pytest.fixture
def hub(weights: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with hub_server.running() as hub:
        hub.files[FILE] = weights
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def files_in_home() -> list[str]:
    """Names of all files in the models folder, locks left out."""
    found = (path for path in paths.models_dir().rglob("*") if path.is_file())
    return sorted(path.name for path in found if path.parent.name != ".locks")


def test_a_file_of_the_hub_is_fetched_once(hub: Hub, weights: bytes) -> None:
    news: list[PullProgress] = []
    model = models.pull(FILE, news.append)
    assert (model.name, model.origin, model.size_bytes) == (NAME, FILE, len(weights))
    assert model.path.read_bytes() == weights
    assert news[-1] == PullProgress(len(weights), len(weights))
    assert models.pull(FILE) == models.find(NAME) == models.find(FILE) == model
    assert len(hub.asked) == 1
    assert files_in_home() == ["provenance.json", "tiny-Q8_0.gguf"]


def test_a_connection_that_breaks_is_taken_up_again(hub: Hub, weights: bytes) -> None:
    hub.cuts = [50_000, 0, 30_000]
    hub.statuses = [503]
    assert models.pull(FILE).path.read_bytes() == weights
    assert [asked.start for asked in hub.asked] == [0, 0, 50_000, 50_000, 80_000]


def test_a_file_that_is_shorter_than_the_hub_says_is_refused(hub: Hub, weights: bytes) -> None:
    hub.claims = {"X-Linked-Size": str(len(weights) + 1)}
    with pytest.raises(DownloadError, match="The hub answered 416"):
        models.pull(FILE)
    assert models.installed() == []


def test_a_server_without_ranges_sends_all_of_it_again(hub: Hub, weights: bytes) -> None:
    hub.knows_ranges = False
    hub.cuts = [50_000]
    assert models.pull(FILE).path.read_bytes() == weights


def pull_and_cancel(hub: Hub) -> int:
    """Begin to fetch, cancel when something has come, and return how many bytes are there."""
    hub.holds_at = 100_000
    cancel = threading.Event()

    def cancel_soon(news: PullProgress) -> None:
        if news.done_bytes:
            cancel.set()

    with pytest.raises(DownloadCancelled):
        models.pull(FILE, cancel_soon, cancel)
    hub.holds_at = None
    return models.leftovers()[NAME]


def test_a_cancelled_download_ends_at_once_and_goes_on_later(
    hub: Hub, weights: bytes, children: Children
) -> None:
    there = pull_and_cancel(hub)
    assert 0 < there <= 100_000
    assert not children()
    assert models.installed() == []
    assert models.pull(FILE).path.read_bytes() == weights
    assert hub.asked[-1].start == there
    assert models.leftovers() == {}


def test_another_version_of_the_file_is_not_mixed_with_the_old(hub: Hub, weights: bytes) -> None:
    pull_and_cancel(hub)
    hub.files[FILE] = weights[:-1] + bytes([weights[-1] ^ 1])
    assert models.pull(FILE).path.read_bytes() == hub.files[FILE]
    assert hub.asked[-1].start == 0
    assert files_in_home() == ["provenance.json", "tiny-Q8_0.gguf"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_killed_leaves_no_junk_and_no_process(
    hub: Hub, weights: bytes, number: signal.Signals
) -> None:
    hub.holds_at = 100_000
    process = subprocess.Popen(
        [sys.executable, "-m", "ondevice", "models", "pull", FILE], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not models.leftovers().get(NAME):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (fetching,) = psutil.Process(process.pid).children()
    process.send_signal(number)
    assert process.wait(60) == (130 if number == signal.SIGINT else -number)
    assert fetching in psutil.wait_procs([fetching], 60)[0]
    assert models.installed() == []
    there = models.leftovers()[NAME]
    hub.holds_at = None
    assert models.pull(FILE).path.read_bytes() == weights
    assert hub.asked[-1].start == there


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_download_whose_process_is_killed_says_so_and_goes_on_later(
    hub: Hub, weights: bytes, children: Children
) -> None:
    hub.holds_at = 100_000

    def kill(news: PullProgress) -> None:
        if news.done_bytes:
            for process in children():
                process.kill()

    with pytest.raises(DownloadError, match=r"ended unexpectedly \(-9\)\. Try again"):
        models.pull(FILE, kill)
    hub.holds_at = None
    assert models.pull(FILE).path.read_bytes() == weights
    assert hub.asked[-1].start > 0


def test_what_is_being_fetched_is_not_removed(hub: Hub) -> None:
    refusals: list[str] = []

    def remove(news: PullProgress) -> None:
        if news.done_bytes and not hub.gate.is_set():
            with pytest.raises(ModelError) as error:
                models.remove(NAME)
            refusals.append(str(error.value))
            hub.gate.set()

    hub.holds_at = 100_000
    assert models.pull(FILE, remove)
    assert refusals == [f"{NAME} is being downloaded. Stop the download first."]


def test_what_is_left_of_a_download_can_be_removed(hub: Hub) -> None:
    assert pull_and_cancel(hub) == models.removable(NAME)
    models.remove(NAME)
    assert files_in_home() == []


def test_damage_on_the_way_is_found_and_nothing_kept(hub: Hub) -> None:
    hub.changes = lambda content: content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(DownloadError, match="arrived damaged"):
        models.pull(FILE)
    assert files_in_home() == []
    assert models.installed() == []


def test_a_hub_that_says_no_sha256_is_refused(hub: Hub) -> None:
    hub.claims = {"X-Linked-Etag": '"5d41402abc4b2a76b9719d911017c592"'}
    with pytest.raises(DownloadError, match="gives no size or no sha256"):
        models.pull(FILE)


@pytest.mark.parametrize("n_bytes", ["0", "-5", "many"])
def test_a_hub_that_says_no_size_is_refused(hub: Hub, n_bytes: str) -> None:
    hub.claims = {"X-Linked-Size": n_bytes}
    with pytest.raises(DownloadError, match="gives no size"):
        models.pull(FILE)


def receive(hub: Hub, weights: bytes, folder: Path) -> None:
    """Fetch in this process, without waiting between attempts."""
    source = HubSource(repo="someone/Tiny-GGUF", file="tiny-Q8_0.gguf")
    url = f"{hub.endpoint}/weights/{FILE}"
    remote = _hub._Remote(url, len(weights), "0" * 64, folder / "tiny.gguf")
    with pytest.MonkeyPatch.context() as patch, remote.part.open("a+b") as file:
        patch.setattr("ondevice.models._hub.time.sleep", lambda _: None)
        with _hub._hub_errors_of(source):
            _hub._receive(remote, _hub._PartialFile(file, Meter(total=0)))


def test_a_hub_that_sends_a_little_each_time_is_not_asked_for_ever(
    hub: Hub, weights: bytes, tmp_path: Path
) -> None:
    hub.changes = lambda content: content[:32]
    with pytest.raises(DownloadError, match="did not send the rest"):
        receive(hub, weights, tmp_path)
    assert len(hub.asked) < 10


def test_what_a_hub_sends_is_not_quoted_at_length(hub: Hub, weights: bytes, tmp_path: Path) -> None:
    hub.with_weights = {"Transfer-Encoding": "chunked"}
    with pytest.raises(DownloadError, match="stopped answering: illegal chunk") as error:
        receive(hub, weights, tmp_path)
    assert len(str(error.value)) < 1000


def test_two_pulls_at_once_fetch_it_once(hub: Hub, weights: bytes) -> None:
    hub.holds_at = 100_000
    with ThreadPoolExecutor() as threads:
        pulls = [threads.submit(models.pull, FILE) for _ in range(2)]
        assert hub.held.wait(60)
        hub.gate.set()
        assert {pull.result(60).path.read_bytes() for pull in pulls} == {weights}
    assert len(hub.asked) == 1


def test_a_token_opens_what_is_closed_and_goes_to_the_hub_only(
    hub: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_secret"
    with pytest.raises(DownloadError, match=r"accept its conditions.*HF_TOKEN"):
        models.pull(FILE)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert models.pull(FILE).path.read_bytes() == weights
    assert [asked.token for asked in hub.asked] == [None]


def test_what_the_hub_does_not_have_is_named(hub: Hub) -> None:
    with pytest.raises(DownloadError, match=r"The hub has no someone/Tiny-GGUF/other\.gguf"):
        models.pull("someone/Tiny-GGUF/other.gguf")
    assert models.installed() == []
    with pytest.raises(DownloadError, match=r"The hub has no someone/nothing\."):
        models.pull("someone/nothing")
    with pytest.raises(ModelNotFound, match="models list"):
        models.pull("nothing")


def test_a_repository_that_cannot_be_is_named(hub: Hub) -> None:
    with pytest.raises(DownloadError, match=r"a--b/c cannot be a repository"):
        models.pull("a--b/c/d.gguf")


def test_offline_says_how_to_go_online(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="Unset it"):
        models.pull(FILE)


def test_a_network_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with hub_server.running() as hub:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    with pytest.raises(DownloadError, match=f"{hub.endpoint} cannot be reached.*HF_ENDPOINT"):
        models.pull(FILE)


def test_a_disk_that_is_too_small_is_found_before(hub: Hub) -> None:
    hub.claims = {"X-Linked-Size": str(10**18)}
    with pytest.raises(
        DiskSpaceError, match=r"1000000000\.\d GB is needed and .* is free"
    ) as short:
        models.pull(FILE)
    assert "--link" in str(short.value)
    assert "ONDEVICE_HOME" not in str(short.value)  # which would move the chats as well
    assert hub.asked == []


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_disk_that_refuses_to_write_is_named(hub: Hub) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(ModelError, match=f"{NAME} cannot be written: .*large"):
            models.pull(FILE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_home_that_is_no_folder_is_named(hub: Hub, home: Path) -> None:
    home.write_text("")
    with pytest.raises(ModelError, match=r"cannot be written.*ONDEVICE_HOME"):
        models.pull(FILE)
    assert models.installed() == []
    assert models.leftovers() == {}


def test_a_name_belongs_to_one_model(hub: Hub, weights: bytes) -> None:
    other = "another/Repo/tiny-Q8_0.gguf"
    hub.files[other] = weights
    models.pull(FILE)
    with pytest.raises(ModelError, match=f"from {FILE}.*--name"):
        models.pull(other)
    assert models.pull(other, name="mine").name == "mine"
    with pytest.raises(UsageError, match="is not a valid name"):
        models.pull(FILE, name="../mine")


def test_a_split_model_is_fetched_whole(hub: Hub, tmp_path: Path) -> None:
    parts = {}
    for number in (1, 2):
        path = split_part(tmp_path / f"big-{number:05}-of-00002.gguf", number - 1)
        parts[f"someone/Big/Q4/{path.name}"] = path.read_bytes()
    hub.files |= parts
    model = models.pull("someone/Big/Q4/big-00002-of-00002.gguf")
    assert model.name == "big"
    assert model.path.name == "big-00001-of-00002.gguf"
    assert model.size_bytes == sum(map(len, parts.values()))
    digests = [hashlib.sha256(content).hexdigest() for content in parts.values()]
    provenance = (model.path.parent / "provenance.json").read_text()
    assert all(digest in provenance for digest in digests)
    model.path.with_name("big-00002-of-00002.gguf").unlink()
    with pytest.raises(ModelFileError, match=r"big-00002-of-00002\.gguf is missing"):
        models.find("big")
    models.pull("someone/Big/Q4/big-00001-of-00002.gguf")
    assert models.find("big").size_bytes == model.size_bytes


@pytest.mark.parametrize("with_provenance", [True, False])
def test_parts_of_two_versions_of_a_split_model_are_not_mixed(
    hub: Hub, tmp_path: Path, with_provenance: bool
) -> None:
    names = [f"someone/Big/big-{number:05}-of-00002.gguf" for number in (1, 2)]
    old, new = (
        [split_part(tmp_path / str(number), number, value).read_bytes() for number in (0, 1)]
        for value in (1.0, 2.0)
    )
    hub.files |= dict(zip(names, old, strict=True))
    first = models.pull(names[0]).path
    first.with_name("big-00002-of-00002.gguf").unlink()  # it never came
    if not with_provenance:
        (first.parent / "provenance.json").unlink()
    hub.files |= dict(zip(names, new, strict=True))
    news: list[PullProgress] = []
    models.pull(names[0], news.append)
    parts = [first.with_name(Path(name).name).read_bytes() for name in names]
    assert parts == new
    assert news[-1] == PullProgress(sum(map(len, new)), sum(map(len, new)))
    first.unlink()
    hub.asked.clear()
    models.pull(names[0])
    assert len(hub.asked) == 1  # what is there and right is not fetched again


@pytest.mark.parametrize("way", ["hub", "import"])
def test_whatever_ends_it_no_model_is_there_whose_origin_is_not_known(
    hub: Hub, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    class Killed(BaseException):
        pass

    replace = Path.replace

    def dies_behind(path: Path, target: Path) -> None:
        replace(path, target)
        if target.suffix == ".gguf":
            raise Killed

    monkeypatch.setattr(Path, "replace", dies_behind)
    file = tmp_path / f"{NAME}.gguf"
    file.write_bytes(weights)
    there = paths.ensure_private(paths.models_dir() / NAME) / f"{NAME}.gguf"
    digest = hashlib.sha256(weights).hexdigest()
    remote = _hub._Remote(f"{hub.endpoint}/weights/{FILE}", len(weights), digest, there)
    with pytest.raises(Killed):
        if way == "hub":
            _hub._fetch(remote, Provenance(origin=FILE, sha256=(digest,)), Meter(0))
        else:
            models.import_file(file)
    assert models.find(NAME).origin == (FILE if way == "hub" else str(file))


def test_what_a_server_sends_behind_the_end_is_left(hub: Hub, weights: bytes) -> None:
    hub.changes = lambda content: content + b"more" * 1000
    assert models.pull(FILE).path.read_bytes() == weights


@pytest.mark.parametrize("status", [403, 404, 416, 429])
def test_of_a_download_of_which_nothing_came_nothing_is_left(hub: Hub, status: int) -> None:
    hub.statuses = [status]
    with pytest.raises(DownloadError):
        models.pull(FILE)
    assert list(paths.models_dir().glob("*")) == [paths.models_dir() / ".locks"]


def split_part(path: Path, number: int, value: float = 1.0) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint16("split.no", number)
    writer.add_uint16("split.count", 2)
    writer.add_int32("split.tensors.count", 2)
    writer.add_tensor(f"blk.{number}.ffn_up.weight", np.full((3, 64), value, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_cannot_chat_is_not_kept(hub: Hub, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "mmproj.gguf", "clip")
    writer.add_type("mmproj")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    hub.files["someone/Eyes/mmproj.gguf"] = (tmp_path / "mmproj.gguf").read_bytes()
    with pytest.raises(ModelFileError, match="not a chat model"):
        models.pull("someone/Eyes/mmproj.gguf")
    assert files_in_home() == []


@pytest.mark.parametrize(
    "wanted",
    [
        "https://huggingface.co/someone/Tiny-GGUF/resolve/main/tiny-Q8_0.gguf?download=true",
        "https://huggingface.co/someone/Tiny-GGUF/blob/main/tiny-Q8_0.gguf",
        "hf.co/someone/Tiny-GGUF:Q8_0",
        "https://hf.co/someone/Tiny-GGUF/",
        "someone/Tiny-GGUF:q8_0",
        "someone/Tiny-GGUF",
    ],
)
def test_a_file_is_known_by_what_people_paste(hub: Hub, wanted: str) -> None:
    hub.files["someone/Tiny-GGUF/tiny-IQ8_0_X.gguf"] = b"another"
    hub.files["someone/Tiny-GGUF/mmproj-tiny-Q8_0.gguf"] = b"no model by itself"
    model = models.pull(wanted)
    assert (model.name, model.origin) == (NAME, FILE)


def test_which_file_is_meant_is_asked(hub: Hub) -> None:
    with pytest.raises(DownloadError, match=FILE):
        models.pull("someone/Tiny-GGUF:Q3_K_S")
    with pytest.raises(ModelNotFound):
        models.pull("someone/Tiny-GGUF/../../other/x.gguf")


def test_a_hub_that_asks_to_wait_is_waited_for(hub: Hub, weights: bytes) -> None:
    hub.statuses, hub.wait = [429], {"Retry-After": "0"}
    assert models.pull(FILE).path.read_bytes() == weights
    models.remove(NAME)
    hub.statuses, hub.wait = [429], {}
    with pytest.raises(DownloadError, match="too many requests"):
        models.pull(FILE)


def test_a_web_page_in_place_of_a_file_is_said(hub: Hub) -> None:
    hub.with_weights = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(DownloadError, match="log in"):
        models.pull(FILE)


def test_what_has_come_before_counts_at_once_and_not_as_if_it_came_now(tmp_path: Path) -> None:
    path, meter, counted = tmp_path / "part", Meter(10), []
    path.write_bytes(b"12345")

    class Watched(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            counted.append(meter.done)
            return super().read(-1 if size is None else size)

    with Watched(path, "a+") as file:
        part = _hub._PartialFile(file, meter)
        assert set(counted) == {5}
        part.append(b"6789")
        assert meter.done == 9
        part.clear()
        assert meter.done == 0
