"""The assistant's next message: from the conversation in the store to the engine and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ondevice.chats._chats import Chats
from ondevice.chats._draft import Draft
from ondevice.engine import EngineLike
from ondevice.engine.messages import Chunk, Event, Finished, Generate, Sampling
from ondevice.errors import StoreUnwritable


def reply(
    chats: Chats,
    engine: EngineLike,
    conversation_id: int,
    sampling: Sampling,
    *,
    after: int | None = None,
    on_begun: Callable[[int], None] | None = None,
) -> Iterator[Event]:
    """Continue the conversation with the assistant's next message, saved as it comes.

    It answers the message ``after``, or the last one of the branch that is shown. If that is an
    assistant's, it goes on where it ended.

    ``on_begun`` gets the id of a new message once there is one, in the thread that iterates and
    before anybody can read it from the store.

    Blocks; iterate in a worker thread. If the engine dies, if the iteration is given up or if
    this process is killed, what has come stays in the store as an interrupted message.

    Raises what :meth:`EngineLike.generate` raises, and :class:`StoreError`; that of a reply which
    could not be saved comes after its last event.
    """
    conversation = chats.load(conversation_id, until=after)
    last = conversation.messages[-1] if conversation.messages else None
    continued = last if last and last.role == "assistant" else None
    request = Generate(turns=conversation.turns(), sampling=sampling)
    draft: Draft | None = None
    unsaved: StoreUnwritable | None = None
    try:
        for event in engine.generate(request):
            if draft is None:  # only now is it certain that a model is loaded
                model = engine.loaded.name if engine.loaded else ""
                parent = last.id if last else None
                draft = Draft(chats.database, conversation_id, parent, model, continued, on_begun)
            if isinstance(event, Chunk):
                draft.add(event)
            elif isinstance(event, Finished):
                try:
                    draft.finish(event)
                except StoreUnwritable as error:
                    unsaved = error
            yield event
    finally:
        if draft is not None and not unsaved:
            draft.close()
    if unsaved:
        raise unsaved
