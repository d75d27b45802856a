"""What the model has read: the KV cache of one conversation, and the states of others to put there.

What a context has computed is kept when a reply is complete and nobody waits. But the state of a
recurrent model has no middle to go back to or to keep. So it is held where a conversation is likely
to go on from, as soon as it is there: before the last message, after it, and after the reply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ondevice.engine._states import Node, States, common_prefix
from ondevice.llama import Context
from ondevice.messages import Keep

_WORTH = 16  # tokens that are rather read again than kept or restored by themselves
_PIECE = 4_000_000  # bytes, about, that are kept at once: it is in RAM twice for a moment


class ConversationCache:
    """The conversation in ``context``, of which the next one may begin with as much.

    ``spelling`` is that conversation as tokens, the reply as it was sampled: the cache may hold
    less of it, since what a reply ended with was never decoded. ``identity`` tells the weights
    apart with which tokens are computed: those of a stack change.
    """

    def __init__(
        self,
        context: Context,
        states: States,
        identity: Callable[[], bytes] = bytes,
        has_checkpoint_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self.context = context
        self.spelling: list[int] = []
        self._states = states
        self._identity = identity
        self._has_checkpoint_room = has_checkpoint_room
        self._is_mixed = False  # computed with several weights: of use here, and nowhere else
        self._tip: Node | None = None  # up to here, what the context holds is kept already
        self._unwritten: list[Node] = []  # in RAM, on the way to the tip
        self._marks: list[int] = []  # tokens at which it is cut into nodes, ascending
        self._shared = 0  # tokens that other conversations may begin with
        self._asked = 0  # tokens of the last prompt
        self._is_of_kept = False  # whether what the context holds is of a conversation that is kept
        #: Of the last prompt that was answered, the tokens and the logits after it: asked again, it
        #: needs no computing, and a seed gives the same reply, whoever computes.
        self._prompt: tuple[list[int], npt.NDArray[np.float32]] | None = None

    @property
    def uses_marks(self) -> bool:
        """Whether :meth:`reuse` has a use for marks: something may be held or kept there."""
        context = self.context
        return context.keeps_state and (self._states.is_kept or not context.can_go_back)

    def begin(self, keep: Keep | None) -> None:
        """The next conversation is kept so, or not."""
        states = self._states
        if not self.context.keeps_state:
            return
        self._look_at_weights()
        before = states.keep
        if keep != before:
            self.settle()
        states.open(keep)
        if keep is None or before is None or keep.own != before.own:
            last = states.longest()
            self.spelling = last.all_tokens if last else self.spelling

    def visit(self, keep: Keep) -> bool:
        """Put a conversation that may go on into the KV cache, if it and what is there are kept.

        Returns whether that was done.
        """
        context, states = self.context, self._states
        before, spelling = states.keep, self.spelling
        unkept = len(context.tokens) - (self._tip.end if self._tip and before else 0)
        if not context.keeps_state or unkept >= _WORTH or (before and before.own == keep.own):
            return False
        self.begin(keep)
        last = states.longest()
        if last is None or last.end < common_prefix(self.spelling, context.tokens) + _WORTH:
            states.open(before)
            self.spelling = spelling
            return False
        self._restore(last, last.end)
        self._begin_after(())
        return True

    def problem(self) -> str:
        """Why nothing can be kept on the disk; empty: it can, or this was told before."""
        problem, self._states.problem = self._states.problem, ""
        return problem

    def reuse(self, tokens: Sequence[int], marks: Sequence[int] = (), shared: int = 0) -> int:
        """Have the KV cache hold as much of ``tokens`` as there is anywhere; returns how much.

        ``marks`` are places to which one may come back: before the last message, say. Other
        conversations may have the first ``shared`` tokens as well.
        """
        context = self.context
        known = self._prompt is not None and self._prompt[0] == tokens
        most = len(tokens) if known else len(tokens) - 1
        common = min(common_prefix(tokens, context.tokens), most)
        if common + _WORTH <= self._asked and not self._is_of_kept:
            self._put_aside()
        self._asked = len(tokens)
        here = context.held_at(common)
        node, there = self._elsewhere(tokens[:most])
        if node is not None and there >= here + _WORTH:
            self._restore(node, there)
        else:
            context.truncate(here)
        self._is_mixed = self._is_mixed and bool(context.tokens)
        self._begin_after({*marks, shared} - {0}, shared)
        self._have_checkpoint()
        return len(context.tokens)

    def _put_aside(self) -> None:
        """Another conversation comes: hold in RAM, if there is room, what nothing else keeps."""
        context, states = self.context, self._states
        tip, _ = states.find(context.tokens, within=False)
        start, end = tip.end if tip else 0, len(context.tokens)
        if not context.keeps_state or self._is_mixed or end < start + _WORTH:
            return
        if states.make_room(context.kv_bytes * (end - start) // context.n_ctx, tip):
            states.hold(tip, context.tokens[start:], context.export(start, end))

    def stops(self, length: int) -> list[int]:
        """Where to stop on the way to ``length`` tokens, so as to come back there."""
        context = self.context
        if not context.keeps_state or context.can_go_back:
            return []
        last = max(len(context.tokens), self._tip.end if self._tip else 0)
        found = []
        for mark in [*self._marks, length]:
            if last + _WORTH <= mark <= length or last < mark == length:
                found.append(mark)
                last = mark
        return found

    def hold(self) -> None:
        """Hold the state where the decoding has stopped, in RAM until the disk has it.

        If there is no room in RAM, as with weights that are streamed, the disk has it at once.
        """
        if self._is_mixed:
            return
        context, states, tip = self.context, self._states, self._tip
        start, end = tip.end if tip else 0, len(context.tokens)
        tokens, state = context.tokens[start:], context.export(start, end)
        if states.is_kept and not states.has_room(len(state)):
            for _ in self._writing_held():
                pass
            self._tip = states.write(tip, tokens, state, shared=end <= self._shared) or tip
        elif node := states.hold(tip, tokens, state):
            self._tip = node
            self._unwritten.append(node)
        elif end in self._marks or not context.has_checkpoint:
            self._have_checkpoint()

    def _have_checkpoint(self) -> None:
        """What is not kept on the disk comes back to here, if a later prompt goes on from here."""
        context = self.context
        wanted = context.takes_checkpoints and not self._states.is_kept and context.tokens
        if wanted and self._has_checkpoint_room():
            context.checkpoint()

    def keep_logits(self) -> None:
        """All that was decoded is a prompt, whose logits are needed again if it is asked again."""
        if self._prompt is None or self._prompt[0] != self.context.tokens:
            self._prompt = list(self.context.tokens), self.context.logits()

    @property
    def prompt_logits(self) -> npt.NDArray[np.float32]:
        """The logits after the prompt; shape (n_vocab,)."""
        assert self._prompt is not None
        return self._prompt[1]

    def settle(self) -> None:
        """Keep all that has been computed."""
        for _ in self.settling():
            pass

    def settling(self) -> Iterator[None]:
        """As :meth:`settle`, in steps of a few hundredths of a second."""
        context, states = self.context, self._states
        if not context.keeps_state:
            return
        self._look_at_weights()
        if self._is_mixed or not states.is_kept:
            return
        yield from self._writing_held()
        yield from self._writing()
        states.tidy()

    def _writing_held(self) -> Iterator[None]:
        """Write what is in RAM."""
        for node in self._unwritten:
            if node.state is not None:
                self._states.write(
                    node.parent, node.tokens, node.state, shared=node.end <= self._shared
                )
                yield
        self._unwritten.clear()

    def _writing(self) -> Iterator[None]:
        """Write what comes after the tip."""
        context = self.context
        length = len(context.tokens)
        if length - (self._tip.end if self._tip else 0) < _WORTH:
            return
        piece = max(_WORTH, _PIECE * context.n_ctx // max(1, context.kv_bytes))
        if not context.can_go_back:
            piece = length
        for end in [*(self._marks if context.can_go_back else ()), length]:
            while (start := self._tip.end if self._tip else 0) < end <= length:
                if end < length and end - start < _WORTH:
                    break
                to = min(end, start + piece)
                state = context.export(start, to)
                tokens = context.tokens[start:to]
                written = self._states.write(self._tip, tokens, state, shared=to <= self._shared)
                if written is None:
                    return
                self._tip = written
                yield

    def _elsewhere(self, tokens: Sequence[int]) -> tuple[Node | None, int]:
        context = self.context
        if not context.keeps_state:
            return None, 0
        return self._states.find(tokens, within=context.can_go_back)

    def _look_at_weights(self) -> None:
        if self._states.identify(self._identity()):
            self._is_mixed = bool(self.context.tokens)
            self._tip = None
            self._unwritten.clear()

    def _begin_after(self, marks: Iterable[int], shared: int = 0) -> None:
        """What is decoded next comes after what the context holds now."""
        self._tip = self._states.find(self.context.tokens, within=False)[0]
        self._is_of_kept = self._states.is_kept
        self._marks, self._shared = sorted(marks), shared

    def _restore(self, node: Node, length: int) -> None:
        self._is_mixed = False
        self.context.restore(self._states.load(node.path()))
        self.context.truncate(min(length, len(self.context.tokens)))
