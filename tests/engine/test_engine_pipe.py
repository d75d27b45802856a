"""The pipe to the engine: whose answers are whose, what cannot be asked, and who ends when."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import psutil
import pytest
import tiny_model

from ondevice.engine import Engine
from ondevice.errors import (
    EngineDied,
    EngineError,
    LoadCancelled,
    ModelFileError,
    OndeviceError,
    UsageError,
)
from ondevice.messages import (
    Chunk,
    Embed,
    Finished,
    Generate,
    Load,
    Measure,
    Notice,
    Sampling,
    Turn,
    decode_answer,
    encode,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
GREEDY = Sampling(temperature=0)
#: For about a second.
ENDLESS = "root ::= [a-z]{1900}"
#: So that it says other things all the time: what repeats itself is ended.
VARIED = Sampling(temperature=3, top_k=0, top_p=1, min_p=0, seed=1)
WEDGED = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
OWNER = """
import sys, time
from pathlib import Path
from ondevice.engine import Engine
from ondevice.messages import Generate, Load, Turn
engine = Engine(log=Path(sys.argv[2]))
engine.load(Load(path=sys.argv[1]))
print(engine.pid, flush=True)
while sys.argv[3] == "busy":
    list(engine.generate(Generate(turns=(Turn("user", "x"),), grammar="root ::= [a-z]{1900}")))
time.sleep(60)
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_model, "_CTX", 4096)  # for long replies
        return tiny_model.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="module")
def wedged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose template never ends."""
    return tiny_model.write(tmp_path_factory.mktemp("wedged") / "wedged.gguf", template=WEDGED)


@pytest.fixture
def engine(tiny: Path, tmp_path: Path) -> Iterator[Engine]:
    with Engine(log=tmp_path / "engine.log") as engine:
        engine.load(Load(path=str(tiny)))
        yield engine


def saying(text: str, question: str = "x", **options: Any) -> Generate:
    """A request whose reply is ``text``, so that one sees whose it is."""
    options.setdefault("grammar", f'root ::= "{text}"')
    return Generate(turns=(Turn("user", question),), sampling=GREEDY, **options)


def reply(engine: Engine, text: str) -> str:
    events = list(engine.generate(saying(text)))
    assert isinstance(events[-1], Finished)
    return "".join(event.text for event in events if isinstance(event, Chunk))


def endless() -> Generate:
    return Generate(turns=(Turn("user", "x"),), sampling=VARIED, grammar=ENDLESS)


def test_after_an_exception_in_the_middle_the_next_request_gets_its_own_reply(
    engine: Engine,
) -> None:
    events = engine.generate(endless())
    next(events)
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt)
    assert reply(engine, "one") == "one"
    events = engine.generate(endless())
    next(events)
    del events  # and so does who forgets it
    gc.collect()
    assert reply(engine, "two") == "two"
    events = engine.generate(endless())
    next(events)
    closing = threading.Thread(target=events.close)
    closing.start()
    closing.join()
    assert reply(engine, "three") == "three"


@posix
def test_ctrl_c_while_it_waits_leaves_an_engine_that_answers(engine: Engine) -> None:
    pid = engine.pid
    threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        for _ in engine.generate(endless()):
            pass
    assert reply(engine, "after") == "after"
    assert engine.pid == pid, "it obeyed, so it need not have been ended"


def test_an_exception_while_a_model_is_loaded_leaves_an_engine_that_loads(
    engine: Engine, tiny: Path
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.load(Load(path=str(tiny)), interrupt)
    assert engine.loaded is None
    with pytest.raises(UsageError, match="No model"):
        reply(engine, "x")
    engine.load(Load(path=str(tiny)))
    assert reply(engine, "again") == "again"


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (
            lambda: made(Generate, turns=(made(Turn, role="tool", content="x"),)),
            r"turns\[0\].role .* assistant",
        ),
        (
            lambda: made(Generate, turns=(made(Turn, role="user", content=None),)),
            r"turns\[0\].content must be text",
        ),
        (
            lambda: made(Generate, turns=(made(Turn, role="user", content=b"x"),)),
            r"turns\[0\].content must be text",
        ),
        (
            lambda: made(Generate, turns=(made(Turn, role="user", content="caf\udce9"),)),
            r"turns\[0\].content .* UTF-8",
        ),
        (lambda: made(Generate, turns="x"), "turns must be a list"),
        (lambda: made(Generate, turns=(), stop="x"), "stop must be a list"),
        (lambda: made(Generate, turns=(), stop=(object(),)), r"stop\[0\] must be text"),
        (lambda: made(Generate, turns=(), max_tokens="2"), "max_tokens .* from 1 to"),
        (lambda: made(Generate, turns=(), max_tokens=10**30), "max_tokens .* from 1 to"),
        (lambda: made(Generate, turns=(), json_schema={"a": object()}), "schema"),
        (lambda: made(Generate, turns=(), sampling={"topk": 1}), "top_k"),
        (lambda: with_sampling(temperature=None), "sampling.temperature .* from 0 to 100"),
        (lambda: with_sampling(temperature=math.nan), "sampling.temperature .* not nan"),
        (lambda: with_sampling(temperature=math.inf), "sampling.temperature .* not inf"),
        (lambda: with_sampling(temperature=-1), "sampling.temperature .* from 0"),
        (lambda: with_sampling(min_p=2), "sampling.min_p .* from 0 to 1"),
        (lambda: with_sampling(repeat_penalty=0), "sampling.repeat_penalty .* above 0"),
        (lambda: with_sampling(top_k=-(2**63)), "sampling.top_k .* from 0"),
        (lambda: with_sampling(seed=1.5), "sampling.seed must be a whole number"),
        (lambda: made(Load, path="x", ram="400M"), "ram must be a whole number"),
        (lambda: made(Load, path="x", kv_type="q5_0"), "kv_type must be one of"),
        (lambda: made(Load, path="x", n_ctx=-5), "n_ctx .* from 16"),
        (lambda: made(Load, path="x", n_threads=5000), "n_threads .* from 1 to 512"),
        (lambda: made(Load, path=None), "path must be text"),
        (lambda: made(Embed, texts="x"), "texts must be a list"),
        (lambda: made(Embed, texts=None), "texts must be a list"),
        (lambda: made(Embed, texts=5), "texts must be a list"),
        (
            lambda: made(Generate, turns=(), grammar='root ::= "a"', json_schema={}),
            "grammar or a JSON schema, not both",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_name_of_the_field(
    shared: Engine, make: Callable[[], Generate | Load | Embed], field: str
) -> None:
    with pytest.raises(UsageError, match=field):
        match request := make():
            case Load():
                shared.load(request)
            case Generate():
                list(shared.generate(request))
            case Embed():
                shared.embed(request.texts)
    assert shared.loaded is not None


@pytest.mark.parametrize("wrong", [None, "model.gguf", {"path": "x"}, Turn("user", "x")])
def test_what_is_no_request_is_refused_with_what_is_wanted(shared: Engine, wrong: Any) -> None:
    with pytest.raises(UsageError, match="A Load is wanted, not a "):
        shared.load(wrong)
    with pytest.raises(UsageError, match="A Generate is wanted, not a "):
        list(shared.generate(wrong))
    with pytest.raises(UsageError, match="A Measure is wanted, not a "):
        shared.measure(wrong)
    assert reply(shared, "yes") == "yes"


T = TypeVar("T")


def made(kind: type[T], **fields: Any) -> T:
    """A request, or a part of one, whose fields may be of any type."""
    return kind(**fields)


def with_sampling(**options: Any) -> Generate:
    return Generate(turns=(), sampling=Sampling(**options))


@pytest.fixture(scope="module")
def shared(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(log=tmp_path_factory.mktemp("log") / "engine.log") as engine:
        engine.load(made(Load, path=tiny))  # a Path does as well
        yield engine


def test_what_the_process_does_not_understand_it_says_so_and_goes_on(tiny: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ondevice.engine._worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    broken = [b"\n", b"{}\n", b"[1]\n", b'[2,{"type":"Load"}]\n', b'[3,{"type":"No"}]\n', b"\xff\n"]
    broken += [b'[4,{"type":"Load","path":"x","n_ctx":null,"ram":"x"}]\n', b"[" * 100_000 + b"\n"]
    load = encode(Load(path=str(tiny)), 9)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"".join(broken) + load)
    process.stdin.flush()
    answers = [decode_answer(process.stdout.readline()) for _ in broken]
    assert [number for number, _ in answers] == [0, 0, 1, 2, 3, 0, 4, 0] or [
        number for number, _ in answers
    ] == [0, 0, 0, 2, 3, 0, 4, 0]
    assert {type(answer).__name__ for _, answer in answers} == {"Failed"}
    while type(decode_answer(process.stdout.readline())[1]).__name__ != "Loaded":
        pass
    process.stdin.close()
    assert process.wait(5) == 0, "without an app there is no engine"
    process.stdout.close()


def test_who_has_been_closed_starts_no_process(tiny: Path, tmp_path: Path) -> None:
    before = psutil.Process().children()
    with Engine(log=tmp_path / "engine.log") as engine:
        engine.load(Load(path=str(tiny)))
    with pytest.raises(UsageError, match="closed"):
        engine.load(Load(path=str(tiny)))
    with pytest.raises(UsageError, match="closed"):
        reply(engine, "x")
    assert engine.pid is None
    assert psutil.Process().children() == before


def test_a_forgotten_engine_ends_its_process(tiny: Path, tmp_path: Path) -> None:
    engine = Engine(log=tmp_path / "engine.log")
    engine.load(Load(path=str(tiny)))
    assert engine.pid is not None
    process = psutil.Process(engine.pid)
    del engine
    gc.collect()
    psutil.wait_procs([process], timeout=5)
    assert not process.is_running()


@posix
def test_after_a_fork_the_engine_is_of_use_to_its_owner_only(engine: Engine) -> None:
    asked: list[Callable[[], object]] = [
        lambda: list(engine.generate(saying("x"))),
        lambda: engine.load(Load(path="x.gguf")),
        lambda: engine.embed(["x"]),
        lambda: engine.measure(Measure()),
    ]
    if not (child := os.fork()):
        refused = 0
        with contextlib.suppress(BaseException):
            for ask in asked:
                with contextlib.suppress(UsageError):
                    ask()
                    break
                refused += 1
            engine.resize(None)
            engine.cancel()
            engine.close()
        os._exit(0 if refused == len(asked) else 1)
    deadline = time.monotonic() + 20
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    assert ended[1] == 0
    assert reply(engine, "here") == "here"


@posix
def test_a_stopped_process_is_ended_by_a_cancel_and_starts_again(engine: Engine) -> None:
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGSTOP)
    threading.Timer(0.1, engine.cancel).start()
    started = time.monotonic()
    # So long that the pipe does not hold it.
    events = list(engine.generate(saying("x", question="x" * 200_000)))
    assert time.monotonic() - started < 8
    assert isinstance(events[0], Notice)
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "cancelled"
    assert reply(engine, "again") == "again"


def test_a_template_without_end_is_ended_and_named(wedged: Path, tmp_path: Path) -> None:
    with Engine(log=tmp_path / "engine.log") as engine:
        started = time.monotonic()
        with pytest.raises(ModelFileError, match=r"wedged\.gguf"):
            engine.load(Load(path=str(wedged)))
            list(engine.generate(Generate(turns=(Turn("user", "x"),))))
        assert time.monotonic() - started < 20


def test_the_process_outlives_the_thread_that_asked_for_it(tiny: Path, tmp_path: Path) -> None:
    with Engine(log=tmp_path / "engine.log") as engine:
        thread = threading.Thread(target=engine.load, args=(Load(path=str(tiny)),))
        thread.start()
        thread.join()
        assert reply(engine, "yes") == "yes"


@posix
@pytest.mark.parametrize("state", ["idle", "busy", "stopped"])
def test_the_process_ends_with_its_app_whatever_it_is_doing(
    tiny: Path, tmp_path: Path, state: str
) -> None:
    if state == "stopped" and sys.platform != "linux":
        pytest.skip("only Linux ends a process that is stopped")
    command = [sys.executable, "-c", OWNER, str(tiny), str(tmp_path / "engine.log"), state]
    app = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert app.stdout is not None
    engine = psutil.Process(int(app.stdout.readline()))
    if state == "stopped":
        engine.suspend()
    elif state == "busy":
        before = sum(engine.cpu_times()[:2])
        while sum(engine.cpu_times()[:2]) < before + 0.1:
            time.sleep(0.02)
    app.kill()
    app.wait()
    app.stdout.close()
    _, alive = psutil.wait_procs([engine], timeout=2)
    assert not alive or engine.status() == psutil.STATUS_ZOMBIE


@posix
def test_a_file_that_the_engine_dies_of_is_named_and_not_tried_again(
    tiny: Path, tmp_path: Path
) -> None:
    with Engine(log=tmp_path / "engine.log") as engine:
        engine.load(Load(path=str(tiny)))
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGSEGV)  # it gets no further
        with pytest.raises(EngineDied, match=r"while it loaded tiny\.gguf.*native code"):
            engine.load(Load(path=str(tiny)))
        with pytest.raises(UsageError, match=r"tiny\.gguf"):
            reply(engine, "x")
        engine.load(Load(path=str(tiny)))
        events = engine.generate(Generate(turns=(Turn("user", "x"),), sampling=GREEDY))
        next(events)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGSTOP)
        os.kill(engine.pid, signal.SIGSEGV)
        os.kill(engine.pid, signal.SIGCONT)
        with pytest.raises(EngineDied, match=r"first reply of tiny\.gguf"):
            list(events)
        with pytest.raises(UsageError, match=r"tiny\.gguf"):
            reply(engine, "x")


@posix
@pytest.mark.parametrize("number", [40, 2])
def test_each_signal_is_called_what_it_is(engine: Engine, number: int) -> None:
    events = engine.generate(endless())
    next(events)
    assert engine.pid is not None
    os.kill(engine.pid, number)
    name = "signal 40" if number == 40 else signal.Signals(number).name
    with pytest.raises(EngineDied, match=f"killed by {name}"):
        list(events)
    assert reply(engine, "again") == "again"


def test_after_a_cancelled_reload_the_model_is_loaded_with_the_next_message(
    engine: Engine,
) -> None:
    psutil.Process(engine.pid).kill()
    with pytest.raises(EngineDied):
        reply(engine, "one")

    def cancel() -> None:
        while engine.pid is None:  # Python takes longer to start than this to look again
            time.sleep(0.001)
        engine.cancel()

    threading.Thread(target=cancel).start()
    with pytest.raises(LoadCancelled):
        reply(engine, "two")
    assert reply(engine, "three") == "three"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_process_has_no_secrets_and_leaves_no_core(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDEVICE_PASSPHRASE", "a secret")
    monkeypatch.setenv("ONDEVICE_API_KEY", "a secret")
    with Engine(log=tmp_path / "engine.log") as engine:
        engine.load(Load(path=str(tiny)))
        process = Path(f"/proc/{engine.pid}")
        assert b"a secret" not in (process / "environ").read_bytes()
        limits = (process / "limits").read_text()
        core = next(line for line in limits.splitlines() if "core file" in line).split()
        assert core[4] in {"0", "1"}


def test_without_a_place_for_its_log_it_works(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Engine(log=tmp_path / "file" / "engine.log") as engine:
        engine.load(Load(path=str(tiny)))
        assert reply(engine, "yes") == "yes"


@pytest.mark.parametrize("log", ["engine.log", "no\0name"])
def test_a_log_is_named_as_python_names_files(tiny: Path, tmp_path: Path, log: str) -> None:
    """And a process that cannot be started keeps nobody waiting, whatever the reason."""
    with Engine(log=str(tmp_path / log)) as engine:
        if "\0" in log:
            with pytest.raises(EngineError, match=r"could not be started: .*null"):
                engine.load(Load(path=str(tiny)))
        else:
            engine.load(Load(path=str(tiny)))
            assert (tmp_path / log).exists()


@pytest.mark.parametrize("name", ["engine", "to engine"])
def test_without_a_thread_nobody_is_kept_waiting(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A system may allow no more threads; later it does."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    with Engine() as engine:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(EngineError, match="could not be started: can't start new thread"):
                engine.load(Load(path=str(tiny)))
        engine.load(Load(path=str(tiny)))
        assert reply(engine, "yes") == "yes"


@pytest.mark.random
def test_each_reply_belongs_to_its_request_whatever_came_before(
    shared: Engine, tiny: Path, rounds: Callable[[int], Iterator[Random]]
) -> None:
    for random in rounds(12):
        if shared.loaded is None:
            shared.load(Load(path=str(tiny)))
        match random.choice(["throw", "close", "forget", "cancel", "load", "resize", "refuse"]):
            case "throw":
                events = take(shared, random)
                with pytest.raises(ZeroDivisionError):
                    events.throw(ZeroDivisionError)
            case "close":
                take(shared, random).close()
            case "forget":
                take(shared, random)
            case "cancel":
                threading.Timer(random.random() / 10, shared.cancel).start()
                list(shared.generate(endless()))
            case "load":
                after = random.random()

                def on_progress(fraction: float, after: float = after) -> None:
                    if fraction >= after:
                        raise ZeroDivisionError

                with pytest.raises(ZeroDivisionError):
                    shared.load(Load(path=str(tiny)), on_progress)
                shared.load(Load(path=str(tiny)))
            case "resize":
                shared.resize(random.choice([None, 0, 10**6]))
            case "refuse":
                with pytest.raises(OndeviceError):
                    list(shared.generate(saying("", grammar="root ::= (")))
        word = "".join(random.choices("abcdefgh", k=5))
        assert reply(shared, word) == word


def take(engine: Engine, random: Random) -> Any:
    events = engine.generate(endless())
    for _ in range(random.randrange(1, 6)):
        next(events)
    return events
