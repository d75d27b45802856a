"""What the app asks a model for itself: titles, facts, notes."""

from __future__ import annotations

from ondevice.engine import EngineLike
from ondevice.messages import Aside, Chunk, Finished, FinishReason, server_of


def answered(engine: EngineLike, request: Aside) -> tuple[str, FinishReason]:
    """The answer without its thinking, and how it ended."""
    answer = ""
    reason: FinishReason = "stop"
    for event in engine.generate(request):
        if isinstance(event, Chunk) and event.part == "answer":
            answer += event.text
        elif isinstance(event, Finished):
            reason = event.reason
    return answer, reason


def is_elsewhere(engine: EngineLike) -> bool:
    """Whether the model is on a server: nothing goes there but what the user sends."""
    return engine.loaded is not None and server_of(engine.loaded.path) is not None
