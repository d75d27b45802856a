"""One exchange: what the user says goes to the store, then to the engine; so does the reply."""

from __future__ import annotations

from collections.abc import Iterator

from ondevice.chats._chats import Chats
from ondevice.engine import EngineLike
from ondevice.engine.messages import Chunk, Event, Finished, Generate, Sampling


def converse(
    chats: Chats, engine: EngineLike, conversation_id: int, text: str, sampling: Sampling
) -> Iterator[Event]:
    """Say ``text`` in the conversation and stream the reply. Both are saved as they come.

    Blocks; iterate in a worker thread. What has come of a reply stays in the store as an
    interrupted message if the engine dies, if the iteration is given up, or if this process is
    killed.

    Raises what :meth:`EngineLike.generate` raises, and :class:`StoreError`.
    """
    chats.say(conversation_id, text)
    request = Generate(turns=chats.load(conversation_id).turns(), sampling=sampling)
    model = engine.loaded.name if engine.loaded else ""
    draft = chats.draft(conversation_id, model)
    try:
        for event in engine.generate(request):
            if isinstance(event, Chunk):
                draft.add(event)
            elif isinstance(event, Finished):
                draft.finish(event)
            yield event
    finally:
        draft.save()
