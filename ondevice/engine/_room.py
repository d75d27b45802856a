"""What RAM a loaded model may take, as that changes: weights and context share it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ondevice.engine._drafting import SmallModel
from ondevice.engine._loading import HeldModel
from ondevice.engine._sizing import Sizer
from ondevice.errors import MemoryShortError
from ondevice.messages import Sizing
from ondevice.ram.need import embedding_batches, for_embedding, for_schemas, need
from ondevice.text import size

_GROWTH = 2  # times: a context that grows does so by that, where there is room


class Room:
    """The RAM of ``held``, at most ``limit`` bytes for the process.

    ``report`` is called when something has changed, mostly from a thread of its own. ``wake`` must
    have the thread that decodes call :meth:`between_passes` once it is idle.
    """

    def __init__(
        self,
        held: HeldModel,
        limit: int | None,
        report: Callable[[Sizing], None],
        wake: Callable[[], None],
    ) -> None:
        self._held = held
        beside = held.plan.peak_bytes - held.plan.resident_bytes
        small = held.drafter if isinstance(held.drafter, SmallModel) else None
        self._has_checkpoint_room = False
        self._sizer = Sizer(held.weights, limit, beside, report, wake, small)

    @property
    def n_ctx(self) -> int:
        """Tokens of the context."""
        return self._held.context.n_ctx

    def resize(self, budget: int | None) -> None:
        """Take the user's wish for the weights, in bytes; None: there is none.

        Any thread may call this.
        """
        self._sizer.resize(budget)

    def between_passes(self) -> None:
        """Now more or fewer weights may be held: for the thread that decodes to call."""
        self._sizer.settle()

    def want_context(self, n_tokens: int) -> None:
        """Have the context hold so many tokens, and some more, at the cost of weights in RAM.

        If there is no room, nothing changes. There are never more tokens than the model was
        trained on, and never others than the user has asked for.
        """
        held = self._held
        context, kv_type, file = held.context, held.plan.kv_type, held.plan.file
        least = min(n_tokens, file.n_ctx_train)
        if not held.may_grow or least <= context.n_ctx:
            return
        before = need(file, context.n_ctx, kv_type)
        for n_ctx in (min(file.n_ctx_train, max(least, context.n_ctx * _GROWTH)), least):
            after = need(file, n_ctx, kv_type)
            if after.n_ctx <= context.n_ctx:  # the model has no more positions
                return
            more = after.kv + after.compute - before.kv - before.compute
            if self._sizer.claim(more + before.kv):  # for a moment it is there twice
                with suppress(MemoryShortError), self._given_back(more + before.kv):
                    context.grow(after.n_ctx)
                    self._sizer.claim(-before.kv)
                return

    @contextmanager
    def for_schemas(self) -> Iterator[None]:
        """Make room for :class:`ondevice.llama.SchemaVocabulary`, at the cost of weights in RAM.

        The block makes it; if that fails, the room is given back. Raises :class:`MemoryShortError`
        if there is none.
        """
        n_bytes = for_schemas(self._held.plan.file)
        if not self._sizer.claim(n_bytes):
            raise _no_room("follow a schema", n_bytes)
        with self._given_back(n_bytes):
            yield

    @contextmanager
    def for_embedding(self, n_ctx: int, *, at_once: bool) -> Iterator[int]:
        """The same for a context that turns ``n_ctx`` tokens into a vector.

        Gives how many of them it may compute in a batch: all of them, if it must be ``at_once``.
        """
        file = self._held.plan.file
        n_bytes = 0
        for batch_tokens in [n_ctx] if at_once else embedding_batches(file):
            n_bytes = for_embedding(file, n_ctx, batch_tokens)
            if self._sizer.claim(n_bytes):
                with self._given_back(n_bytes):
                    yield batch_tokens
                return
        raise _no_room("embed texts", n_bytes)

    def for_checkpoint(self) -> bool:
        """Make room for :meth:`Context.checkpoint`, once; whether there is."""
        if not self._has_checkpoint_room:
            self._has_checkpoint_room = self._sizer.claim(self._held.context.checkpoint_bytes)
        return self._has_checkpoint_room

    @contextmanager
    def _given_back(self, n_bytes: int) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._sizer.claim(-n_bytes)
            raise

    def may_hold(self, held: int, more: int) -> bool:
        """Whether, beside ``held`` bytes of states, ``more`` of them may be in RAM.

        As many as two conversations of the whole context have, where there is room. Weights that
        are streamed need it more, but for a recurrent model, which cannot go back without.
        """
        context = self._held.context
        if context.can_go_back and self._held.weights.streamed_bytes:
            return False
        return held + more <= 2 * context.kv_bytes and self._sizer.has_spare(more)

    @property
    def may_grow(self) -> bool:
        """Whether the context would grow now, if more were wanted of it."""
        held = self._held
        n_ctx, kv_type, file = held.context.n_ctx, held.plan.kv_type, held.plan.file
        if not held.may_grow:
            return False
        after = need(file, min(file.n_ctx_train, n_ctx * _GROWTH), kv_type)
        if after.n_ctx <= n_ctx:  # the model has no more positions
            return False
        before = need(file, n_ctx, kv_type)
        return self._sizer.has_room(after.kv + after.compute - before.compute)

    def close(self) -> None:
        """Stop looking."""
        self._sizer.close()


def _no_room(purpose: str, n_bytes: int) -> MemoryShortError:
    return MemoryShortError(
        f"There is no room to {purpose}: that takes {size(n_bytes)} of RAM besides what the model "
        "takes. Give it more RAM or a shorter context, or use a smaller model."
    )
