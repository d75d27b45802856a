"""The assistant's next message: from the conversation in the store to the engine and back."""

from __future__ import annotations

from collections.abc import Iterator

from ondevice.chats._chats import Chats, Draft
from ondevice.engine import EngineLike
from ondevice.engine.messages import Chunk, Event, Finished, Generate, Sampling


def reply(
    chats: Chats, engine: EngineLike, conversation_id: int, sampling: Sampling
) -> Iterator[Event]:
    """Continue the conversation with the assistant's next message, saved as it comes.

    Blocks; iterate in a worker thread. If the engine dies, if the iteration is given up or if
    this process is killed, what has come stays in the store as an interrupted message.

    Raises what :meth:`EngineLike.generate` raises, and :class:`StoreError`.
    """
    request = Generate(turns=chats.load(conversation_id).turns(), sampling=sampling)
    draft: Draft | None = None
    try:
        for event in engine.generate(request):
            if draft is None:  # only now is it certain that a model is loaded
                model = engine.loaded.name if engine.loaded else ""
                draft = chats.draft(conversation_id, model)
            if isinstance(event, Chunk):
                draft.add(event)
            elif isinstance(event, Finished):
                draft.finish(event)
            yield event
    finally:
        if draft is not None:
            draft.save()
