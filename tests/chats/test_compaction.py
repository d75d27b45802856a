"""A summary stands for the oldest messages of a long chat, and for nothing else."""

from __future__ import annotations

import pytest

from ondevice.chats import Chats, compact, reply
from ondevice.chats._compaction import clean
from ondevice.engine import Engine
from ondevice.errors import StoreError
from ondevice.messages import Generate, Load, Sampling, Turn
from ondevice.store import Database
from ondevice.testing import FakeEngine, Gate, Step

WORDS = "one two three four five six seven eight nine ten"


def engine_with(*asides: list[Step], n_ctx: int = 180) -> FakeEngine:
    """Replies with ten words; in this engine each word is a token."""
    engine = FakeEngine([f"Yes. {WORDS}"], asides=asides or (["- They counted.\n"],))
    engine.load(Load(path="fake.gguf", n_ctx=n_ctx))
    return engine


def talk(chats: Chats, engine: FakeEngine, exchanges: int, chat: int | None = None) -> int:
    chat = chats.create("Be kind.") if chat is None else chat
    for number in range(exchanges):
        chats.say(chat, f"Say {number}: {WORDS}")
        list(reply(chats, engine, chat, Sampling()))
    return chat


def prompt_of(chats: Chats, chat: int, until: int | None = None) -> list[str]:
    return [turn.content for turn in chats.load(chat, until=until).turns()]


def ids(chats: Chats, chat: int) -> list[int]:
    return [message.id for message in chats.load(chat).messages]


def finish(chats: Chats, engine: FakeEngine, chat: int) -> None:
    begun = False
    while compact(chats, engine, chat, begun=begun):
        begun = True


def compacted(chats: Chats, engine: FakeEngine, exchanges: int = 6) -> int:
    chat = talk(chats, engine, exchanges)
    finish(chats, engine, chat)
    return chat


def summarised(chats: Chats, chat: int) -> int:
    return chats.load(chat).summarised


def test_the_oldest_exchanges_are_summed_up_once_most_of_the_context_is_in_use(
    chats: Chats,
) -> None:
    engine = engine_with()
    chat = talk(chats, engine, 4)
    assert compact(chats, engine, chat) == 0
    talk(chats, engine, 1, chat)
    before = prompt_of(chats, chat)
    assert compact(chats, engine, chat)
    asked = engine.requests[-1]
    assert isinstance(asked, Generate)
    assert "User: Say 0: one two" in asked.turns[-1].content
    assert "Say 4" not in asked.turns[-1].content
    system, notes, *rest = chats.load(chat).turns()
    assert (system, notes.role, notes.stays) == (Turn("system", "Be kind."), "user", True)
    assert notes.content.endswith("\n- They counted.")
    n_left = summarised(chats, chat)
    assert [turn.content for turn in rest] == before[1 + n_left :]
    assert rest[0].role == "user"
    assert compact(chats, engine, chat) == 0


def test_a_later_summary_keeps_what_the_earlier_one_says(chats: Chats) -> None:
    engine = engine_with(["- They counted.\n"], ["- They went on.\n"])
    chat = compacted(chats, engine)
    first = summarised(chats, chat)
    talk(chats, engine, 4, chat)
    assert compact(chats, engine, chat)
    assert summarised(chats, chat) > first
    assert prompt_of(chats, chat)[1].endswith("\n- They counted.\n- They went on.")


def test_of_too_many_notes_names_and_numbers_stay(chats: Chats) -> None:
    plain = "".join(f"- They liked it, {word}.\n" for word in WORDS.split())
    engine = engine_with([f"- They met Ana.\n{plain}- Of 3 they spoke.\n"])
    chat = talk(chats, engine, 6)
    assert compact(chats, engine, chat)
    _, first, *some, last = prompt_of(chats, chat)[1].splitlines()
    assert (first, last) == ("- They met Ana.", "- Of 3 they spoke.")
    assert some[-1] == "- They liked it, ten."
    assert "- They liked it, one." not in some


def test_a_context_that_can_grow_is_not_spared(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    from msgspec.structs import replace

    engine = engine_with()
    chat = talk(chats, engine, 6)
    measure = engine.measure
    monkeypatch.setattr(engine, "measure", lambda request: replace(measure(request), may_grow=True))
    assert compact(chats, engine, chat) == 0
    talk(chats, engine, 4, chat)  # more than it holds: some have left
    assert compact(chats, engine, chat)


def test_now_all_but_the_last_exchange_are_summed_up(chats: Chats) -> None:
    engine = engine_with(n_ctx=4096)
    chat = talk(chats, engine, 1)
    assert compact(chats, engine, chat, now=True) == 0
    talk(chats, engine, 2, chat)
    assert compact(chats, engine, chat, now=True) == 4
    assert compact(chats, engine, chat, now=True) == 0


@pytest.mark.parametrize("script", [["- They ", Gate(), "counted.\n"], [], ["\n \n"]])
def test_without_notes_nothing_changes(chats: Chats, script: list[Step]) -> None:
    engine = engine_with(script)
    chat = talk(chats, engine, 6)
    if len(script) > 1:
        real = engine.generate

        def cancelled(request: Generate):
            for event in real(request):
                engine.cancel()
                yield event

        engine.generate = cancelled  # type: ignore[method-assign]
    before = prompt_of(chats, chat)
    assert compact(chats, engine, chat) is None
    assert prompt_of(chats, chat) == before


def test_what_only_the_example_tells_is_no_note(chats: Chats) -> None:
    engine = engine_with(["- They want a green kitchen.\n- They counted.\n"])
    chat = talk(chats, engine, 6)
    assert compact(chats, engine, chat)
    assert prompt_of(chats, chat)[1].splitlines()[1:] == ["- They counted."]


def test_other_branches_and_edits_do_not_see_a_summary_that_is_not_theirs(chats: Chats) -> None:
    engine = engine_with()
    chat = compacted(chats, engine)
    end = ids(chats, chat)
    n_left = summarised(chats, chat)
    # A reply is had again to a message within what was summed up.
    assert prompt_of(chats, chat, until=end[0]) == ["Be kind.", f"Say 0: {WORDS}"]
    list(reply(chats, engine, chat, Sampling(), after=end[0]))
    assert summarised(chats, chat) == 0
    chats.show(end[-1])
    assert summarised(chats, chat) == n_left
    # A message of it is edited.
    chats.say(chat, "Instead.", instead_of=end[2])
    assert summarised(chats, chat) == 2  # those before it, by an earlier summary
    assert prompt_of(chats, chat)[2:] == ["Instead."]
    # A branch that begins after it has it.
    chats.say(chat, "Another end.", instead_of=end[-2])
    assert summarised(chats, chat) == n_left


def test_a_summary_is_edited_and_undone_and_then_left_alone(chats: Chats) -> None:
    engine = engine_with()
    chat = compacted(chats, engine)
    n_left = summarised(chats, chat)
    last = ids(chats, chat)[n_left - 1]
    state = chats.state(chat)
    before = chats.load(chat).messages[n_left - 1].summary
    assert before
    assert chats.edit_summary(last, "- They sang.\n", instead_of=before.content) == "- They sang."
    assert chats.edit_summary(last, "  ", instead_of="- They sang.") == "- They sang."
    # Another window has changed it meanwhile.
    assert chats.edit_summary(last, "- Other.", instead_of=before.content) == "- They sang."
    assert prompt_of(chats, chat)[1].endswith("\n- They sang.")
    assert chats.state(chat) != state
    chats.use_summary(last, False)
    assert "They sang" not in "".join(prompt_of(chats, chat))
    assert compact(chats, engine, chat) == 0
    chats.use_summary(last, True)
    assert summarised(chats, chat) == n_left
    with pytest.raises(StoreError):
        chats.use_summary(ids(chats, chat)[-1], True)
    # Of what was written in parts, all is undone together.
    assert [m.id for m in chats.load(chat).messages if m.summary] == [last]
    chats.use_summary(last, False)
    assert summarised(chats, chat) == 0
    assert compact(chats, engine, chat, now=True) == 2
    assert [bool(m.summary) for m in chats.load(chat).messages] == [False, True, *[False] * 10]


def test_what_a_summary_stands_for_may_be_recalled(chats: Chats) -> None:
    engine = engine_with()
    chat = chats.create()
    chats.say(chat, "My boat is called Marlin and lies in Porto.")
    list(reply(chats, engine, chat, Sampling()))
    talk(chats, engine, 5, chat)
    question = "What is my boat called?"
    assert not chats.say(chat, question, recall=300, n_ctx=4096).recalled
    list(reply(chats, engine, chat, Sampling()))
    finish(chats, engine, chat)
    said = chats.say(chat, question, recall=300, n_ctx=4096)
    assert [cube.content for cube in said.recalled][:1] == [
        "My boat is called Marlin and lies in Porto."
    ]


def test_forgetting_takes_the_summaries_that_have_seen_it(chats: Chats, database: Database) -> None:
    engine = engine_with(["- The xylotheque is in Kassel.\n"])
    chat, other = compacted(chats, engine), compacted(chats, engine)
    chats.database.backup()
    message = chats.load(chat).messages[0]
    (cube,) = (one for one in chats.memory.latest(limit=-1) if one.message_id == message.id)
    chats.memory.forget([cube.id])
    assert summarised(chats, chat) == summarised(chats, other) == 0  # it was said in both
    folder = database.path.parent
    assert not [f for f in folder.iterdir() if f.is_file() and b"xylotheque" in f.read_bytes()]
    chats.delete(other)
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM summary").fetchone()[0] == 0


def test_nothing_is_kept_of_what_is_forgotten_while_the_model_reads_it(chats: Chats) -> None:
    engine = engine_with()
    chat = talk(chats, engine, 6)
    real = engine.generate

    def forgetting(request: Generate):
        chats.memory.forget_conversation(chat)
        yield from real(request)

    engine.generate = forgetting  # type: ignore[method-assign]
    assert compact(chats, engine, chat) is None
    assert summarised(chats, chat) == 0


@pytest.mark.parametrize(
    ("answer", "cut", "notes"),
    [
        ("- A.\n* B\n\n- A.\n", False, ["- A.", "- B"]),
        ("- A.\n- B and th", True, ["- A."]),
        ("- A and th", True, ["- A and th"]),
        ("- \x1b]0;evil\x07A\n-\n", False, ["- ]0;evilA"]),
    ],
)
def test_notes_are_what_is_left_of_an_answer(answer: str, cut: bool, notes: list[str]) -> None:
    assert clean(answer, cut=cut) == notes


def test_a_real_model_writes_notes(chats: Chats, engine: Engine) -> None:
    chat = chats.create()
    chats.say(chat, "I have three cats and a boat in Porto. Which of them needs more care?")
    list(reply(chats, engine_with(), chat, Sampling()))
    chats.say(chat, "Thank you.")
    assert compact(chats, engine, chat, now=True) == 2
    _, *notes = prompt_of(chats, chat)[0].splitlines()
    assert notes
    assert all(line.startswith("- ") for line in notes)
