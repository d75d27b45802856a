"""Chats go on where they were: after a restart, in turn, edited; and what is kept is forgotten."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gguf
import msgspec
import numpy as np
import pytest
import shapes

from ondevice import llama, models
from ondevice.chats import Attachment, Chats, reply
from ondevice.config import Settings
from ondevice.disk import states as kept
from ondevice.engine import Engine
from ondevice.engine._cache import ConversationCache
from ondevice.engine._loading import load_model
from ondevice.engine._room import Room
from ondevice.engine._session import Session
from ondevice.engine._state_files import Head, StateFolder
from ondevice.engine._states import Node, States
from ondevice.llama import Context, Model
from ondevice.messages import (
    Chunk,
    Event,
    Finished,
    Generate,
    Keep,
    Load,
    Sampling,
    StateKey,
    Statistics,
    Turn,
)
from ondevice.planning.request import load_request
from ondevice.store import Database
from ondevice.system import compiled

GREEDY = Sampling(temperature=0, seed=0)
LONG = " ".join(f"Word {n} of the story is {n * 7 % 13}." for n in range(26))


def keep(folder: Path, own: str = "own", secret: bytes = b"k" * 32, most: int = 10**9) -> Keep:
    for name in (own, "shared"):
        (folder / name).mkdir(exist_ok=True)
    shared = StateKey("shared", b"s" * 32)
    return Keep(folder=str(folder), own=StateKey(own, secret), shared=shared, most_bytes=most)


def opened(where: Keep | None, identity: bytes = b"model", room: int = 0) -> States:
    states = States(lambda held, more: held + more <= room)
    states.identify(identity)
    states.open(where)
    return states


def loaded(
    states: States, tokens: list[int], *, within: bool = True
) -> tuple[int, list[bytes | bytearray]]:
    node, length = states.find(tokens, within=within)
    return length, [state for _, state in states.load(node.path() if node else [])]


# ------------------------------------------------------------------ the tree


def test_conversations_that_begin_alike_share_what_they_begin_with(tmp_path: Path) -> None:
    states = opened(keep(tmp_path))
    first = states.write(None, [1, 2, 3], b"first", shared=True)
    assert states.write(first, [4, 5], b"second", shared=False)
    again = opened(keep(tmp_path))
    assert loaded(again, [1, 2, 3, 4, 5, 6]) == (5, [b"first", b"second"])
    assert loaded(again, [1, 2, 3, 4, 9]) == (4, [b"first", b"second"])
    assert loaded(again, [1, 2, 3, 4, 9], within=False) == (3, [b"first"])
    assert loaded(opened(keep(tmp_path, "other")), [1, 2, 3, 4, 5]) == (3, [b"first"])
    assert loaded(opened(keep(tmp_path), b"another model"), [1, 2, 3]) == (0, [])
    assert loaded(opened(None), [1, 2, 3]) == (0, [])


def test_nothing_is_written_twice(tmp_path: Path) -> None:
    states = opened(keep(tmp_path))
    states.write(None, [1, 2], b"state", shared=False)
    (file,) = tmp_path.glob("own/*")
    before = file.stat()
    for each in (states, opened(keep(tmp_path))):
        assert each.write(None, [1, 2], b"state", shared=False)
        each.tidy()
    assert file.stat().st_ino == before.st_ino
    assert kept.usage(tmp_path).written_today == before.st_size
    assert before.st_mode & 0o777 == 0o600


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 3)


def begin_anew(file: Path) -> None:
    file.write_bytes(b"odstate9" + file.read_bytes()[8:])


def change(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)


def empty(file: Path) -> None:
    os.truncate(file, 0)


@pytest.mark.parametrize("damage", [cut, begin_anew, change, empty])
def test_a_damaged_file_is_not_used_and_is_deleted(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    opened(keep(tmp_path)).write(None, [1, 2], b"state of them", shared=False)
    (file,) = tmp_path.glob("own/*")
    damage(file)
    states = opened(keep(tmp_path))
    assert loaded(states, [1, 2])[1] == []
    assert not file.exists()
    assert loaded(states, [1, 2]) == (0, [])


def test_a_file_under_another_name_or_key_is_not_used(tmp_path: Path) -> None:
    states = opened(keep(tmp_path))
    states.write(None, [1, 2], b"one", shared=False)
    (one,) = tmp_path.glob("own/*")
    states.write(None, [3, 4], b"two", shared=False)
    (two,) = set(tmp_path.glob("own/*")) - {one}
    one.replace(two)
    assert loaded(opened(keep(tmp_path)), [3, 4]) == (0, [])
    states.write(None, [5, 6], b"three", shared=False)
    assert loaded(opened(keep(tmp_path, secret=b"x" * 32)), [5, 6]) == (0, [])


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    states = opened(keep(tmp_path, most=1000))
    for number in range(4):
        states.write(None, [number], bytes(300), shared=False)
        for file in tmp_path.glob("own/*"):
            status = file.stat()
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns - 10**9))
    assert loaded(states, [0])[0] == 1  # is used
    states.tidy()
    left = [number for number in range(4) if loaded(states, [number])[1]]
    assert left == [0, 3]


def test_a_full_disk_stops_it_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(StateFolder, "write", full)
    states = opened(keep(tmp_path))
    assert states.write(None, [1], b"state", shared=False) is None
    assert not states.is_kept
    assert states.problem == os.strerror(errno.ENOSPC)
    states.problem = ""
    states.open(keep(tmp_path))
    assert states.write(None, [1], b"state", shared=False) is None
    assert states.problem == ""


def test_what_is_forgotten_meanwhile_is_not_written(tmp_path: Path) -> None:
    states = opened(keep(tmp_path))
    (tmp_path / "own").rmdir()
    assert states.write(None, [1], b"state", shared=False) is None
    assert states.problem == ""
    assert not (tmp_path / "own").exists()


def test_in_ram_the_newest_stay() -> None:
    states = opened(None, room=10)
    nodes = [states.hold(None, [number], b"1234") for number in range(3)]
    assert all(isinstance(node, Node) for node in nodes)
    assert [bool(loaded(states, [number])[1]) for number in range(3)] == [False, True, True]
    assert states.hold(None, [9], bytes(11)) is None


def test_a_head_of_another_parent_is_left_alone(tmp_path: Path) -> None:
    where = keep(tmp_path)
    folder = StateFolder(tmp_path, where.own)
    folder.write(Head("ab" * 16, "cd" * 16, (1, 2)), b"state")
    assert loaded(opened(where), [1, 2]) == (0, [])


# ------------------------------------------------------------------ the KV cache


@pytest.fixture
def context_of(tmp_path: Path) -> Iterator[Callable[[str], Context]]:
    """Contexts of random models, by family; they are closed after the test."""
    with ExitStack() as opened:

        def make(family: str) -> Context:
            kind, random = gguf.GGMLQuantizationType.Q8_0, np.random.default_rng(1)
            path = shapes.write_random(tmp_path, family, kind, random)
            model = Model(path, use_extra_bufts=False)
            opened.callback(model.close)
            context = Context(model, n_ctx=512, n_threads=1, keeps_state=True)
            opened.callback(context.close)
            return context

        yield make


def read_up_to_stops(cache: ConversationCache, tokens: list[int]) -> None:
    context = cache.context
    for stop in cache.stops(len(tokens)):
        context.decode(tokens[len(context.tokens) : stop])
        cache.hold()


@pytest.mark.parametrize(
    "family", ["dense", "sliding window", "state space", "convolution", "delta net"]
)
def test_a_chat_that_is_opened_is_there_before_it_goes_on(
    family: str, context_of: Callable[[str], Context], tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    first, second, private = (random.integers(3, 250, 60).tolist() for _ in range(3))
    context = context_of(family)
    cache = ConversationCache(context, States(lambda _held, _more: True))

    def read(where: Keep | None, tokens: list[int]) -> None:
        cache.begin(where)
        assert cache.reuse(tokens) == 0
        context.decode(tokens)
        if cache.stops(len(tokens)) or not context.can_go_back:
            cache.hold()
        cache.settle()

    one, two = keep(tmp_path, "one"), keep(tmp_path, "two")
    read(one, first)
    read(two, second)
    assert not cache.visit(two), "it is there"
    assert not cache.visit(keep(tmp_path, "three")), "nothing is kept of it"
    assert context.tokens == second
    assert cache.visit(one)
    for file in tmp_path.glob("*/*.state"):
        file.unlink()
    assert context.tokens == cache.spelling == first
    assert cache.reuse([*first, 9]) == len(first)
    read(None, private)
    assert not cache.visit(one), "what is there is kept nowhere"
    assert context.tokens == private


@pytest.mark.parametrize("most_held", [0, 1])
@pytest.mark.parametrize("family", ["state space", "convolution", "delta net"])
def test_where_ram_has_no_room_the_disk_has_at_once_what_one_comes_back_to(
    family: str, most_held: int, context_of: Callable[[str], Context], tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    tokens = random.integers(3, 250, 60).tolist()
    context = context_of(family)
    cache = ConversationCache(context, States(lambda held, _more: most_held > 0 and not held))
    cache.begin(keep(tmp_path))
    cache.reuse(tokens, marks=[40])
    read_up_to_stops(cache, tokens)
    context.decode([5, 6, 7])  # a reply, which the next prompt spells otherwise
    assert cache.reuse([*tokens, 8, 9]) == len(tokens)
    assert cache.reuse([*tokens[:40], 9, 9]) == 40


@pytest.mark.parametrize("family", ["dense", "short window", "state space", "delta net"])
def test_conversations_that_are_not_kept_take_turns_without_being_read_again(
    family: str, context_of: Callable[[str], Context]
) -> None:
    """As on the server, where a client has a chat, and asks for its title in between."""
    random = np.random.default_rng(1)
    context = context_of(family)
    room = [10**9]
    states = States(lambda held, more: held + more <= room[0])
    cache = ConversationCache(context, states)
    chats: list[list[int]] = [[] for _ in range(3)]

    def turn(chat: list[int], n_tokens: int = 40) -> tuple[int, bytes]:
        """How much there was of it, and the logits of its first answer."""
        cache.begin(None)
        chat += random.integers(3, 250, n_tokens).tolist()
        reused = cache.reuse(chat)
        read_up_to_stops(cache, chat)
        if rest := chat[len(context.tokens) :]:
            context.decode(rest)
        cache.keep_logits()
        answer = context.logits().tobytes()
        for token in (5, 6, 7):
            context.decode([token])
        chat += [5, 6, 7]
        return reused, answer

    for _ in range(3):
        for chat in chats:
            before = len(chat)
            reused, answer = turn(chat)
            assert before - 3 <= reused <= before  # a few tokens are rather read again
    plain = Context(context.model, n_ctx=512, n_threads=1)
    for at in (0, 43, 86):  # in the same pieces, from the first token on
        plain.decode(chats[2][at : at + 40])
        last = plain.logits().tobytes()
        for token in chats[2][at + 40 : at + 43]:
            plain.decode([token])
    assert answer == last
    plain.close()
    assert len(states._held) >= 2
    room[0] = 0  # others need the RAM
    states.make_room(0, None)
    assert not states._held
    assert turn(chats[0])[0] == 0


@pytest.mark.parametrize("lost", ["a reply", "a regenerated one"])
def test_what_is_of_no_use_again_is_not_put_aside(
    lost: str, context_of: Callable[[str], Context]
) -> None:
    random = np.random.default_rng(1)
    context = context_of("dense")
    states = States(lambda *_: True)
    cache = ConversationCache(context, states)
    cache.begin(None)
    prompt = random.integers(3, 250, 60).tolist()
    cache.reuse(prompt)
    context.decode(prompt)
    cache.keep_logits()
    context.decode(random.integers(3, 250, 40).tolist())  # a reply with thinking
    following = prompt if lost == "a regenerated one" else [*prompt, 3, 4, 5]
    assert cache.reuse(following) == 60
    assert not states._held


def test_what_was_used_longest_ago_goes_first_and_never_what_others_build_on() -> None:
    states = opened(None, room=4)
    first = states.hold(None, [1], b"1")
    second = states.hold(first, [2], b"2")
    other = states.hold(None, [3], b"3")
    assert first and second and other
    assert loaded(states, [1, 2]) == (2, [b"1", b"2"])  # used after the other one
    assert states.hold(second, [4], b"44")
    assert loaded(states, [3]) == (0, [])
    assert loaded(states, [1, 2, 4]) == (3, [b"1", b"2", b"44"])
    assert states.hold(None, [5], b"5")  # what comes last in a conversation goes before the rest
    assert loaded(states, [1, 2, 4]) == (2, [b"1", b"2"])
    assert not states.hold(second, [6], b"666")  # which is of no use without what it builds on
    assert loaded(states, [1, 2, 6]) == (2, [b"1", b"2"])
    assert len(states._nodes) == 2  # of what went, nothing stays


def test_a_server_that_runs_for_long_remembers_no_more(tmp_path: Path) -> None:
    states = opened(keep(tmp_path), room=3)
    written = states.write(None, [0], b"0", shared=False)
    for n in range(1, 100):
        first = states.hold(written, [n], b"1")
        assert states.hold(first, [n + 1], b"2")
    assert len(states._nodes) == 1 + 3 and len(states._children) <= 1 + len(states._nodes)
    states._may_hold = lambda *_: False
    states.make_room(0, None)
    assert list(states._nodes.values()) == [written]
    assert loaded(states, [0, 1, 2]) == (1, [b"0"])


@pytest.mark.parametrize("has_room", [True, False])
@pytest.mark.parametrize("family", ["state space", "convolution", "delta net"])
def test_where_nothing_is_kept_each_message_begins_where_the_last_one_did(
    family: str, has_room: bool, context_of: Callable[[str], Context]
) -> None:
    """As in private chats and on the server, with weights that leave no room for states."""
    random = np.random.default_rng(1)
    context = context_of(family)
    states = States(lambda *_: False)
    cache = ConversationCache(context, states, has_checkpoint_room=lambda: has_room)
    cache.begin(None)
    chat: list[int] = []
    began, reused = 0, []
    for _ in range(6):
        mark = len(chat) + 5  # before the message, behind what opens it
        chat += random.integers(3, 250, 40).tolist()
        reused.append(cache.reuse(chat, marks=[mark]))
        read_up_to_stops(cache, chat)
        for token in (5, 6, 7):  # a reply, which the next prompt spells otherwise
            context.decode([token])
        if has_room:
            assert reused[-1] >= began - 5  # where the message before began
        began = mark
    assert not any(reused) if not has_room else all(reused[1:])
    edited = cache.reuse([*chat[:began], 9, 9])  # the last message
    assert edited == (began if has_room else 0)


# ------------------------------------------------------------------ chats


class Brief(Engine):
    """Its replies have a few tokens."""

    def generate(self, request: Generate) -> Generator[Event, None, None]:
        return super().generate(msgspec.structs.replace(request, max_tokens=12))


class Talk:
    """Chats with a model, as the app has them."""

    def __init__(self, chats: Chats, model: Path, folder: Path) -> None:
        chats.limit_states(10**9)
        self.chats, self._folder = chats, folder
        self._load = Load(path=str(model), n_ctx=1024, n_threads=1)
        self.engine = Brief(folder / "engine.log")
        self.engine.load(self._load)

    def restart(self) -> None:
        self.pause()
        self.engine.close()
        self.engine = Brief(self._folder / "engine.log")
        self.engine.load(self._load)

    def pause(self) -> None:
        """Have the engine do something else, before which it keeps all."""
        for _ in self.engine.generate(Generate(turns=(Turn("user", "."),))):
            pass

    def ask(self, chat: int, text: str = "", after: int | None = None) -> tuple[str, Statistics]:
        if text:
            self.chats.say(chat, text)
        events = list(reply(self.chats, self.engine, chat, GREEDY, after=after))
        assert isinstance(events[-1], Finished)
        said = "".join(event.text for event in events if isinstance(event, Chunk))
        return said, events[-1].statistics

    def files(self) -> set[Path]:
        return set(self.chats.database.states.glob("*/*.state"))


@pytest.fixture
def talk(chats: Chats, short: Path, tmp_path: Path) -> Iterator[Talk]:
    talk = Talk(chats, short, tmp_path)
    yield talk
    talk.engine.close()


def computed(statistics: Statistics) -> int:
    return statistics.prompt_tokens - statistics.reused_tokens


def test_a_chat_goes_on_after_a_restart_and_beside_others(talk: Talk, short: Path) -> None:
    one, two = talk.chats.create(), talk.chats.create()
    talk.ask(one, LONG)
    talk.ask(two, LONG[::-1])
    expected, first = talk.ask(one, "And what came after all of that?")
    assert computed(first) < 60
    question = talk.chats.load(one).messages[-2].id
    again, back = talk.ask(one, after=question)
    assert (again, back.reused_tokens) == (expected, back.prompt_tokens)
    _, other = talk.ask(two, "Go on.")
    assert computed(other) < 40
    talk.restart()
    restored, statistics = talk.ask(one, after=question)
    assert restored == expected
    asked = load_request(Settings(), models.find(str(short)))
    assert asked.kv_type_before == "f16"
    assert computed(statistics) < 60


def test_a_file_is_read_once(talk: Talk) -> None:
    file = Attachment("story.txt", LONG)
    for number, question in enumerate(("What is it about?", "How long is it, about?")):
        chat = talk.chats.create()
        talk.chats.say(chat, question, [file])
        _, statistics = talk.ask(chat)
        assert (computed(statistics) < 40) == bool(number)
        talk.restart()


def test_a_private_chat_and_one_that_may_not_be_kept_leave_no_file(talk: Talk) -> None:
    talk.ask(talk.chats.create(private=True), LONG)
    paused = talk.chats.create()
    talk.ask(paused, LONG)
    talk.pause()
    assert talk.files()
    talk.chats.pause(paused)
    talk.chats.limit_states(0)
    talk.ask(talk.chats.create(), LONG)
    talk.pause()
    assert not talk.files()


def test_what_is_deleted_or_forgotten_leaves_no_file(talk: Talk) -> None:
    one, two = talk.chats.create(), talk.chats.create()
    talk.ask(one, f"My parrot is called Bolivar. {LONG}")
    talk.ask(two, LONG)
    talk.pause()
    before = talk.files()
    talk.chats.delete(one)
    left = talk.files()
    assert left and left < before
    talk.chats.memory.forget([talk.chats.memory.search("story").hits[0].cube.id])
    assert not talk.files()
    talk.pause()  # nor does the engine bring it back
    assert not talk.files()


def test_a_key_goes_with_what_its_files_have_seen(chats: Chats, database: Database) -> None:
    chats.limit_states(1)
    one, two = chats.create(), chats.create()
    message = chats.say(one, "Hello there").message_id
    keys = [chats.keep(one), chats.keep(two)]
    assert [chats.keep(one), chats.keep(two)] == keys
    with database.write() as connection:
        connection.execute("DELETE FROM message WHERE id = ?", (message,))
    now = chats.keep(one), chats.keep(two)
    assert all(a and b for a, b in zip(keys, now, strict=True))
    assert (now[0].own, now[1].own) != (keys[0].own, keys[1].own)  # type: ignore[union-attr]
    assert now[1].own == keys[1].own  # type: ignore[union-attr]
    assert now[1].shared != keys[1].shared  # type: ignore[union-attr]
    assert b"secret" not in repr(now[0]).encode()


def test_what_other_kernels_have_computed_is_not_gone_on_with(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama.start(io.StringIO())
    held = load_model(Load(path=str(short), n_ctx=256), lambda _: None, threading.Event())
    room = Room(held, None, lambda _: None, lambda: None)
    session = Session(held, room)
    identity = session._identity()
    assert session._identity() == identity
    monkeypatch.setattr(compiled, "digest", lambda *_: "other kernels")
    assert session._identity() != identity
    for opened in (session, room, held):
        opened.close()
