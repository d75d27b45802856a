"""The assistant's next message: from the conversation in the store to the engine and back."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import suppress

from ondevice.chats._chats import Chats
from ondevice.chats._draft import ReplyDraft
from ondevice.engine import EngineLike
from ondevice.errors import OndeviceError, StoreError, StoreUnwritable
from ondevice.messages import Chunk, Event, Finished, Generate, Sampling, server_of


def reply(
    chats: Chats,
    engine: EngineLike,
    conversation_id: int,
    sampling: Sampling,
    *,
    thinking: bool | None = None,
    thinking_tokens: int | None = None,
    after: int | None = None,
    memories_to: Container[str] = (),
    called: str = "",
    on_begun: Callable[[int], None] | None = None,
) -> Iterator[Event]:
    """Continue the conversation with the assistant's next message, saved as it comes.

    It answers the message ``after``, or the last one of the branch that is shown. If that is an
    assistant's, it goes on where it ended.

    This is the one place where memories go into a request: to a model on this device, or on a
    server that ``memories_to`` has, such of them as were recalled for it.

    ``thinking`` and ``thinking_tokens`` are those of :class:`Generate`.

    ``called``: what the user knows the model as; empty: what its file calls itself.

    ``on_begun`` gets the id of a new message once there is one, in the thread that iterates and
    before anybody can read it from the store.

    Blocks; iterate in a worker thread. If the engine dies, if the iteration is given up or if
    this process is killed, what has come stays in the store as an interrupted message. Where no
    word of an answer came before an error, the message counts as unanswered.

    Raises what :meth:`EngineLike.generate` raises, and :class:`StoreError`; that of a reply which
    could not be saved comes after its last event, and ``chats.unsaved`` has the reply then.
    """
    with suppress(StoreUnwritable):  # it is continued, perhaps
        chats.unsaved.save()
    conversation = chats.load(conversation_id, until=after)
    last = conversation.messages[-1] if conversation.messages else None
    continued = last if last and last.role == "assistant" else None
    server = server_of(engine.loaded.path) if engine.loaded else None
    turns = conversation.turns(server if server is None or server in memories_to else "")
    request = Generate(
        turns=turns,
        sampling=sampling,
        thinking=thinking,
        thinking_tokens=thinking_tokens,
        keep=chats.keep(conversation_id) if server is None else None,
    )
    draft: ReplyDraft | None = None
    unsaved: StoreUnwritable | None = None

    def end(draft: ReplyDraft, finished: Finished | None = None) -> None:
        try:
            if finished:
                draft.finish(finished)
            else:
                draft.close()
        except StoreUnwritable:
            chats.unsaved.add(draft)
            raise

    try:
        for event in engine.generate(request):
            if draft is None:  # only now is it certain that a model is loaded
                model = called or (engine.loaded.name if engine.loaded else "")
                parent = last.id if last else None
                draft = ReplyDraft(
                    chats.database,
                    conversation,
                    parent,
                    model,
                    continued,
                    server,
                    on_begun,
                )
            if isinstance(event, Chunk):
                draft.add(event)
            elif isinstance(event, Finished):
                try:
                    end(draft, event)
                except StoreUnwritable as error:
                    unsaved = error
            yield event
    except OndeviceError:
        if draft is not None:
            with suppress(StoreError):  # the error itself is what matters
                end(draft)
            draft = None
        question = next((m for m in reversed(conversation.messages) if m.role == "user"), None)
        if question:
            with suppress(StoreError):  # as above
                chats.leave_unanswered(question.id)
        raise
    finally:
        if draft is not None and not unsaved:
            end(draft)
    if unsaved:
        raise unsaved
