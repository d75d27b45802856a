"""The engine process with a real model: streaming, reuse, limits, cancel and death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import position_model
import psutil
import pytest
import tiny_model
import wide_model
from gguf import TokenType

from ondevice.engine import Engine
from ondevice.errors import (
    ContextError,
    EngineDied,
    LoadCancelled,
    MemoryShortError,
    ModelChanged,
    ModelFileError,
    UsageError,
)
from ondevice.messages import (
    Chunk,
    Event,
    Finished,
    Generate,
    Load,
    Measure,
    Notice,
    PromptProgress,
    Sampling,
    Turn,
)

GREEDY = Sampling(temperature=0)
SYSTEM = Turn("system", "You are a helpful assistant.")
ENDLESS = 'root ::= ("one " | "two ")+'
APP = """
import sys, time
from ondevice.engine import Engine
from ondevice.messages import Load
engine = Engine()
engine.load(Load(path=sys.argv[1], n_ctx=256))
print(engine.pid, flush=True)
time.sleep(60)
"""
HELLO = (SYSTEM, Turn("user", "Name the capital of France."))


@pytest.fixture(scope="module")
def small_engine(default_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with a context of 256 tokens."""
    with Engine(log=tmp_path_factory.mktemp("log") / "engine.log") as engine:
        engine.load(Load(path=str(default_model), n_ctx=256, n_threads=1))
        yield engine


def ask(engine: Engine, *turns: Turn, **options: Any) -> tuple[str, Finished, list[Event]]:
    """The reply's text, how it finished, and all its events."""
    options.setdefault("sampling", GREEDY)
    events = list(engine.generate(Generate(turns=turns, **options)))
    finished = events[-1]
    assert isinstance(finished, Finished)
    return "".join(e.text for e in events if isinstance(e, Chunk)), finished, events


def test_a_reply_streams_and_carries_its_statistics(engine: Engine) -> None:
    text, finished, events = ask(engine, *HELLO, max_tokens=40)
    assert "Paris" in text
    assert finished.reason == "stop"
    statistics = finished.statistics
    chunks = [e for e in events if isinstance(e, Chunk)]
    assert len(chunks) > 3
    assert statistics.generated_tokens >= len(chunks)
    assert statistics.prompt_ms > 0
    assert statistics.generated_ms > 0
    assert statistics.generated_per_second > 0
    assert statistics.peak_ram_bytes > 50_000_000


def test_chunks_tell_how_many_tokens_they_took(engine: Engine) -> None:
    said = "\U0001f9ff\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35"  # of which a character takes several
    text, finished, events = ask(engine, *HELLO, grammar=f'root ::= "{said * 3}"', max_tokens=200)
    chunks = [e for e in events if isinstance(e, Chunk)]
    assert text == said * 3
    assert finished.statistics.generated_tokens > 1.5 * len(chunks)
    took = sum(chunk.tokens for chunk in chunks)
    assert took in {finished.statistics.generated_tokens, finished.statistics.generated_tokens - 1}


def test_only_new_tokens_are_processed_in_the_next_turn(engine: Engine) -> None:
    first, done, _ = ask(engine, *HELLO, max_tokens=40)
    _, then, _ = ask(engine, *HELLO, Turn("assistant", first), Turn("user", "And of Spain?"))
    assert then.statistics.reused_tokens >= done.statistics.context_tokens


def test_two_conversations_that_are_not_kept_may_take_turns(engine: Engine) -> None:
    spain = [SYSTEM, Turn("user", "Name the rivers of Spain, from north to south, and of France.")]
    for _ in range(2):
        one, first, _ = ask(engine, *HELLO, max_tokens=40)
        ask(engine, *spain, max_tokens=40)
    _, then, _ = ask(engine, *HELLO, Turn("assistant", one), Turn("user", "And of Spain?"))
    assert then.statistics.reused_tokens >= first.statistics.context_tokens - 1


def test_an_edit_of_the_last_message_reprocesses_only_that(engine: Engine) -> None:
    ask(engine, *HELLO)
    _, edited, _ = ask(engine, SYSTEM, Turn("user", "Name the capital of Spain."))
    statistics = edited.statistics
    assert 0 < statistics.prompt_tokens - statistics.reused_tokens < 12


def test_a_reply_goes_on_where_it_was_cut(engine: Engine) -> None:
    whole, _, _ = ask(engine, *HELLO, max_tokens=40)
    cut, _, _ = ask(engine, *HELLO, max_tokens=4)
    rest, then, _ = ask(engine, *HELLO, Turn("assistant", cut), max_tokens=40)
    assert cut + rest == whole
    assert then.statistics.prompt_tokens - then.statistics.reused_tokens <= 1


def test_a_sampled_reply_is_reused_though_its_text_would_tokenize_otherwise(engine: Engine) -> None:
    wild = Sampling(temperature=3.0, top_k=0, top_p=1.0, min_p=0.0, seed=5)
    text, done, _ = ask(engine, *HELLO, sampling=wild, max_tokens=60)
    _, then, _ = ask(engine, *HELLO, Turn("assistant", text), Turn("user", "Go on."), max_tokens=4)
    assert then.statistics.reused_tokens >= done.statistics.context_tokens


@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_a_seed_reproduces_a_reply(engine: Engine, temperature: float) -> None:
    sampling = Sampling(temperature=temperature, seed=7)
    question = (SYSTEM, Turn("user", "Tell me a story about a fox."))
    first, done, _ = ask(engine, *question, sampling=sampling, max_tokens=60)
    ask(engine, SYSTEM, Turn("user", "Something else"), max_tokens=5)
    again, _, _ = ask(engine, *question, sampling=sampling, max_tokens=60)
    once_more, _, _ = ask(engine, *question, sampling=sampling, max_tokens=60)
    assert first == again == once_more
    assert done.statistics.seed == 7


def test_without_a_seed_replies_differ_and_the_seed_is_reported(engine: Engine) -> None:
    question = (SYSTEM, Turn("user", "Tell me a story about a fox."))
    hot = Sampling(temperature=1.5)
    first, done, _ = ask(engine, *question, sampling=hot, max_tokens=40)
    second, _, _ = ask(engine, *question, sampling=hot, max_tokens=40)
    assert first != second
    repeat = Sampling(temperature=1.5, seed=done.statistics.seed)
    assert ask(engine, *question, sampling=repeat, max_tokens=40)[0] == first


def test_a_stop_string_ends_the_reply_before_it(engine: Engine) -> None:
    whole, _, _ = ask(engine, *HELLO)
    text, finished, _ = ask(engine, *HELLO, stop=("Par",))
    assert text == whole.split("Par")[0]
    assert finished.reason == "stop"


def test_max_tokens_ends_the_reply(engine: Engine) -> None:
    _, finished, _ = ask(engine, *HELLO, max_tokens=3)
    assert finished.reason == "length"
    assert finished.statistics.generated_tokens == 3


def test_a_long_conversation_goes_on_without_its_oldest_turns(small_engine: Engine) -> None:
    turns = [SYSTEM]
    told = []
    for number in range(20):
        turns.append(Turn("user", f"Message {number}. " + "Tell me about the sea. " * 4))
        text, finished, events = ask(small_engine, *turns, max_tokens=12)
        turns.append(Turn("assistant", text))
        told += [e.text for e in events if isinstance(e, Notice)]
        assert finished.statistics.context_tokens <= 256
    assert "256 tokens" in told[0]
    assert len(told) < 10, "more than must should leave at once, so that the cache is of use"


def test_a_reply_that_fills_the_context_goes_on(small_engine: Engine) -> None:
    turns = [SYSTEM]
    for number in range(4):
        turns += [Turn("user", f"{number} " + "word " * 30), Turn("assistant", "Yes.")]
    turns.append(Turn("user", "Count from one to one thousand in words."))
    text, finished, events = ask(small_engine, *turns, grammar=ENDLESS, max_tokens=120)
    assert any(isinstance(e, Notice) for e in events)
    assert finished.statistics.generated_tokens == 120
    after = [Turn("assistant", text), Turn("user", "Go on.")]
    _, then, _ = ask(small_engine, *turns, *after, max_tokens=2)
    assert then.statistics.reused_tokens > 120


def test_a_reply_longer_than_the_context_ends_with_length(small_engine: Engine) -> None:
    _, finished, _ = ask(small_engine, *HELLO, grammar=ENDLESS)
    assert finished.reason == "length"
    assert 240 < finished.statistics.context_tokens <= 256


def test_a_message_longer_than_the_context_is_refused(small_engine: Engine) -> None:
    with pytest.raises(ContextError, match="context has 256"):
        ask(small_engine, SYSTEM, Turn("user", "word " * 3000))
    assert "Paris" in ask(small_engine, *HELLO)[0]


def test_progress_is_told_for_a_long_prompt(engine: Engine) -> None:
    _, _, events = ask(engine, SYSTEM, Turn("user", "sea " * 700), max_tokens=1)
    progress = [e for e in events if isinstance(e, PromptProgress)]
    assert len(progress) >= 2
    assert [e.done for e in progress] == sorted(e.done for e in progress)
    assert progress[-1].done == progress[-1].total
    assert progress[-1].n_ctx == 1024


def test_a_json_schema_is_obeyed(engine: Engine) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "people": {"enum": [1, 20, 300]}},
        "required": ["city", "people"],
        "additionalProperties": False,
    }
    text, _, _ = ask(engine, *HELLO, json_schema=json.dumps(schema), max_tokens=80)
    as_dict, _, _ = ask(engine, *HELLO, json_schema=schema, max_tokens=80)
    assert as_dict == text
    answer = json.loads(text)
    assert set(answer) == {"city", "people"}
    assert isinstance(answer["people"], int)


@pytest.mark.parametrize(
    "options", [{"grammar": "root ::= ("}, {"json_schema": "{"}, {"max_tokens": 0}]
)
def test_what_makes_no_sense_is_refused_and_the_engine_lives(
    engine: Engine, options: dict[str, object]
) -> None:
    with pytest.raises(UsageError):
        ask(engine, *HELLO, **options)
    with pytest.raises(UsageError, match="no message"):
        ask(engine, Turn("assistant", "Hello"))
    assert "Paris" in ask(engine, *HELLO)[0]


def test_cancel_ends_a_reply_within_a_token(engine: Engine) -> None:
    request = Generate(turns=HELLO, grammar=ENDLESS, sampling=GREEDY)
    after_cancel = 0
    cancelled = False
    for event in engine.generate(request):
        if cancelled and isinstance(event, Chunk):
            after_cancel += 1
        if isinstance(event, Chunk) and not cancelled:
            engine.cancel()
            cancelled = True
    assert isinstance(event, Finished)
    assert event.reason == "cancelled"
    assert after_cancel < 20, "only what was on its way may still arrive"


def test_cancel_ends_the_processing_of_a_prompt(engine: Engine) -> None:
    turns = (SYSTEM, Turn("user", "the sea and the sky " * 190))
    timer = threading.Timer(0.05, engine.cancel)
    timer.start()
    _, finished, events = ask(engine, *turns, max_tokens=5)
    assert finished.reason == "cancelled"
    assert not any(isinstance(e, Chunk) for e in events)
    assert "Paris" in ask(engine, *HELLO)[0]


def test_a_reply_nobody_reads_to_its_end_does_not_disturb_the_next(engine: Engine) -> None:
    events = engine.generate(Generate(turns=HELLO, grammar=ENDLESS, sampling=GREEDY))
    next(events)
    events.close()
    assert "Paris" in ask(engine, *HELLO)[0]


def test_two_requests_at_once_are_refused(engine: Engine) -> None:
    events = engine.generate(Generate(turns=HELLO, sampling=GREEDY))
    next(events)
    with pytest.raises(UsageError, match="busy"):
        ask(engine, *HELLO)
    list(events)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "memory ran out"),
        (signal.SIGSEGV, "native code"),
        (signal.SIGABRT, "internal error"),
    ],
)
def test_after_its_death_the_engine_starts_again_with_the_next_message(
    engine: Engine, number: signal.Signals, words: str
) -> None:
    events = engine.generate(Generate(turns=HELLO, grammar=ENDLESS, sampling=GREEDY))
    next(events)
    pid = engine.pid
    assert pid is not None
    os.kill(pid, number)
    with pytest.raises(EngineDied, match=words):
        list(events)
    assert engine.pid is None
    assert "Paris" in ask(engine, *HELLO)[0]
    assert engine.loaded is not None


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's OOM killer")
def test_the_engine_goes_before_the_app_when_memory_runs_out(engine: Engine) -> None:
    assert int(Path(f"/proc/{engine.pid}/oom_score_adj").read_text()) > int(
        Path("/proc/self/oom_score_adj").read_text()
    )


def test_a_file_that_is_no_model_is_refused_and_the_engine_lives(
    default_model: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(default_model.read_bytes()[:100_000])
    with Engine() as engine:
        with pytest.raises(ModelFileError):
            engine.load(Load(path=str(broken)))
        with pytest.raises(UsageError, match="No model"):
            ask(engine, *HELLO)
        engine.load(Load(path=str(default_model), n_ctx=256))
        assert "Paris" in ask(engine, *HELLO)[0]


def test_a_model_that_does_not_fit_is_refused_with_the_figures(default_model: Path) -> None:
    with Engine() as engine:
        with pytest.raises(MemoryShortError, match=r"MB of RAM.* --ctx"):
            engine.load(Load(path=str(default_model), n_ctx=8192, kv_type="f16", ram=220_000_000))
        with pytest.raises(MemoryShortError, match="It needs"):
            engine.load(Load(path=str(default_model), ram=100_000_000))
        engine.load(Load(path=str(default_model), n_ctx=512, ram=300_000_000))


def test_a_context_that_was_not_asked_for_shrinks_to_what_fits(default_model: Path) -> None:
    with Engine() as engine:
        loaded = engine.load(Load(path=str(default_model), ram=230_000_000))
        assert 1024 <= loaded.n_ctx < 4096
        assert loaded.streamed_bytes == 0


def test_a_model_larger_than_the_ram_is_streamed_and_says_the_same(
    engine: Engine, default_model: Path
) -> None:
    resident, _, _ = ask(engine, *HELLO)
    with Engine() as small:
        loaded = small.load(Load(path=str(default_model), n_ctx=512, ram=165_000_000))
        assert loaded.streamed_bytes > 20_000_000
        text, finished, _ = ask(small, *HELLO)
        # A cancel is obeyed while weights are read, so that they need not be read anew.
        pid = small.pid
        events = small.generate(Generate(turns=HELLO, grammar=ENDLESS, sampling=GREEDY))
        next(events)
        small.cancel()
        *_, last = events
        assert isinstance(last, Finished)
        assert last.reason == "cancelled"
        assert small.pid == pid
    assert text == resident
    streaming = finished.statistics.streaming
    assert streaming is not None
    passes = finished.statistics.generated_tokens - streaming.accepted_tokens
    assert streaming.bytes_read >= loaded.streamed_bytes * passes
    assert streaming.resident_bytes < loaded.weights_bytes - loaded.streamed_bytes + 20_000_000


def test_a_drafter_saves_passes_and_changes_nothing(default_model: Path, tmp_path: Path) -> None:
    wide = wide_model.write(default_model, tmp_path / "f16.gguf")
    plain = Load(path=str(wide), n_ctx=512, kv_type="f16")
    drafted = msgspec.structs.replace(plain, ram=320_000_000, drafter=str(default_model))
    question = (SYSTEM, Turn("user", "Tell me a story about a fox."))
    replies = []
    for request in (plain, drafted):
        with Engine() as engine:
            engine.load(request)
            for sampling in (GREEDY, Sampling(temperature=0.9, seed=2)):
                text, finished, _ = ask(engine, *question, sampling=sampling, max_tokens=16)
                replies.append(text)
    assert replies[:2] == replies[2:]
    streaming = finished.statistics.streaming
    assert streaming is not None
    assert streaming.accepted_tokens > 3


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no time of the last change")
def test_a_model_in_ram_that_is_overwritten_is_an_error_until_it_is_loaded_again(
    tmp_path: Path,
) -> None:
    path = tiny_model.write(tmp_path / "tiny.gguf")
    asked = Generate(turns=HELLO[1:], max_tokens=3, sampling=GREEDY)
    with Engine() as engine:
        engine.load(Load(path=str(path), n_ctx=256))
        list(engine.generate(asked))
        before = path.stat()
        with path.open("r+b") as file:
            file.seek(before.st_size // 2)
            file.write(b"\x11" * 1000)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        for _ in range(2):
            with pytest.raises(ModelChanged, match="Load the model again"):
                list(engine.generate(asked))
        engine.load(Load(path=str(path), n_ctx=256))
        assert ask(engine, *asked.turns, max_tokens=3)[1].reason == "length"


def test_a_load_can_be_cancelled(default_model: Path) -> None:
    with Engine() as engine:
        with pytest.raises(LoadCancelled):
            engine.load(Load(path=str(default_model)), on_progress=lambda _: engine.cancel())
        assert engine.loaded is None
        engine.load(Load(path=str(default_model), n_ctx=256))


def test_the_engine_ends_when_the_app_is_gone(default_model: Path) -> None:
    app = subprocess.Popen(
        [sys.executable, "-c", APP, str(default_model)], stdout=subprocess.PIPE, text=True
    )
    assert app.stdout is not None
    engine = psutil.Process(int(app.stdout.readline()))
    app.kill()
    app.wait()
    app.stdout.close()
    psutil.wait_procs([engine], timeout=5)
    assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE


def test_native_lines_go_to_the_log_and_not_to_the_screen(
    default_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "logs" / "engine.log"
    with Engine(log=log) as engine:
        engine.load(Load(path=str(default_model), n_ctx=256))
    assert "llama" in log.read_text()
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.fixture(scope="module")
def tiny_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Path]]:
    """An engine for tiny models, and a folder for these."""
    folder = tmp_path_factory.mktemp("tiny")
    with Engine(log=folder / "engine.log") as engine:
        yield engine, folder


def test_a_reply_in_a_loop_is_ended_and_that_is_said(tiny_engine: tuple[Engine, Path]) -> None:
    engine, folder = tiny_engine
    path = tiny_model.write(folder / "tiny.gguf")
    engine.load(Load(path=str(path), n_ctx=1024, n_threads=1))
    text, finished, events = ask(engine, Turn("user", "Hi"), grammar='root ::= "ab" "la"+')
    assert finished.reason == "length"
    assert 500 < len(text) < 800
    assert any("again and again" in e.text for e in events if isinstance(e, Notice))


def test_channels_are_told_apart_and_the_next_turn_works(tiny_engine: tuple[Engine, Path]) -> None:
    engine, folder = tiny_engine
    names = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>")
    source = (
        "{% for m in messages %}{% if '<|channel|>' in m.content %}{{ raise_exception('no') }}"
        "{% endif %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}"
        "<|start|>assistant"
    )
    marks = dict.fromkeys(names, TokenType.CONTROL)
    path = tiny_model.write(folder / "channels.gguf", marks=marks, template=source)
    engine.load(Load(path=str(path), n_ctx=512))
    reply = "<|channel|>analysis<|message|>Hm.<|end|>"
    reply += "<|start|>assistant<|channel|>final<|message|>Yo"
    grammar = f'root ::= "{reply}"'
    _, _, events = ask(engine, Turn("user", "Hi"), grammar=grammar, max_tokens=200)
    chunks = [e for e in events if isinstance(e, Chunk)]
    assert "".join(c.text for c in chunks if c.part == "thinking") == "Hm."
    answer = "".join(c.text for c in chunks if c.part == "answer")
    assert answer == "Yo"
    for kept in (answer, reply):  # as older versions kept it
        turns = (Turn("user", "Hi"), Turn("assistant", kept), Turn("user", "And?"))
        assert ask(engine, *turns, max_tokens=2)[1].reason == "length"


def test_a_model_without_a_template_says_so(tiny_engine: tuple[Engine, Path]) -> None:
    engine, folder = tiny_engine
    path = tiny_model.write(folder / "plain.gguf", template="")
    engine.load(Load(path=str(path)))
    _, finished, events = ask(engine, Turn("user", "Hi"), max_tokens=2)
    assert finished.reason == "length"
    assert [e for e in events if isinstance(e, Notice) and "no chat template" in e.text]
    _, _, events = ask(engine, Turn("user", "Hi"), max_tokens=2)
    assert not any(isinstance(e, Notice) for e in events), "once is enough"


def test_a_model_is_given_no_more_tokens_than_it_has_positions(
    tiny_engine: tuple[Engine, Path],
) -> None:
    engine, folder = tiny_engine
    loaded = engine.load(Load(path=str(position_model.write(folder / "positions.gguf", 300))))
    assert loaded.n_ctx == 256
    assert 256 < engine.embed(("a" * 290,)).tokens <= 300
    with pytest.raises(UsageError, match="300 tokens"):
        engine.embed(("a" * 301,))
    with pytest.raises(ContextError):
        ask(engine, Turn("user", "a" * 260))
    assert not engine.measure(Measure(turns=(Turn("user", "Hi"),))).may_grow


def test_an_encoder_does_not_chat_but_embeds(tiny_engine: tuple[Engine, Path]) -> None:
    engine, folder = tiny_engine
    path = tiny_model.write(folder / "encoder.gguf", architecture="llama-embed")
    engine.load(Load(path=str(path)))
    with pytest.raises(ModelFileError, match=r"encoder\.gguf cannot chat"):
        ask(engine, Turn("user", "Hi"))
    assert len(engine.embed(("by day", "by night")).vectors) == 2
