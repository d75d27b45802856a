"""A model's own prediction block: what it thinks comes next, at the cost of one block a token.

Some models are trained with a block more, which is given the state after a token and the token that
follows it, and tells what comes behind both (multi-token prediction, MTP: "DeepSeek-V3 Technical
Report", section 2.2). What it told may be given to it again, with its own state, and so on.
llama.cpp computes it in a context of its own, with keys and values for that block alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import llama_cpp
import numpy as np
import numpy.typing as npt

from ondevice.errors import MemoryShortError
from ondevice.llama import _log
from ondevice.llama._attention import attention_for
from ondevice.llama._context import GGML_TYPES, Context, end_when_interrupted
from ondevice.llama._eval_hook import EvalHook
from ondevice.llama._next_states import keep_next_states, next_states
from ondevice.llama._waiting import threads_now


class Predictor:
    """Follows the text of ``context`` and predicts how it goes on.

    The model must have been loaded with its prediction block; ``hook`` tells where the weights are.
    ``batch_tokens`` are computed at once. The block looks back on at most ``n_ctx`` tokens: of a
    longer text, on the last ones. Where it lacks a state, because it has not seen the text being
    computed, it is given zeros, as before the first token.

    Raises :class:`MemoryShortError` if the cache or the buffers cannot be allocated.
    """

    def __init__(
        self, context: Context, hook: EvalHook, *, n_ctx: int, kv_type: str, batch_tokens: int
    ) -> None:
        self._hook = hook
        self._batch_tokens = batch_tokens
        self._n_threads = self._computing = context.n_threads
        self._n_vocab, self._n_embd = context.model.n_vocab, context.model.n_embd_out
        if (attention := attention_for(self._n_threads)) is not None:
            hook.add(attention)
        params = llama_cpp.llama_context_default_params()
        params.ctx_type = llama_cpp.LLAMA_CONTEXT_TYPE_MTP
        params.n_ctx = n_ctx
        params.n_batch = params.n_ubatch = batch_tokens
        params.n_outputs_max = 1
        params.n_threads = params.n_threads_batch = self._n_threads
        params.type_k = params.type_v = GGML_TYPES[kv_type]
        params.no_perf = True
        params.cb_eval, params.cb_eval_user_data = hook.callback, hook.data
        _log.reset()
        self._handle = llama_cpp.llama_init_from_model(context.model.handle, params)
        if not self._handle:
            raise MemoryShortError(
                f"There is no memory for drafts: {_log.last_error() or 'no reason given'}."
            )
        self.kv_bytes = _log.buffer_bytes("KV")
        self.compute_bytes = _log.buffer_bytes("compute", "output")
        end_when_interrupted(self._handle)
        keep_next_states(self._handle, of_all=False)
        self._memory = llama_cpp.llama_get_memory(self._handle)
        self._n_ctx = int(llama_cpp.llama_n_ctx(self._handle))
        self._tokens: list[int] = []  # that the model has computed
        self._next = 0  # position that is to be computed next
        self._first = 0  # position that is held, of those before it
        #: After the token before that position and all that follow, a row for each.
        self._states = self._unknown
        self._ahead: int | None = None  # the token behind ``_tokens``, if it has been computed
        context.follow(self._see)

    def close(self) -> None:
        """Free the cache and the buffers; before the context that it follows is closed."""
        if self._handle:
            llama_cpp.llama_free(self._handle)
            self._handle = None

    def predict(self, tokens: Sequence[int], count: int) -> list[int]:
        """What is most likely to follow ``tokens``: ``count`` tokens, or fewer, or none.

        The model has computed all of ``tokens`` but the last one. Raises what actions of the hook
        raise.
        """
        *computed, last = tokens
        n = len(computed)
        if computed != self._tokens[:n]:
            return []
        self._go_back(n, last)
        if self._ahead is not None or not self._take_in(last):
            return []
        predicted = [self._most_likely()]
        while len(predicted) < count and self._decode(
            predicted[-1:], n + len(predicted), next_states(self._handle, -1, 1, self._n_embd), True
        ):
            predicted.append(self._most_likely())
        self._drop_from(n + 1)
        return predicted

    @property
    def _unknown(self) -> npt.NDArray[np.float32]:
        return np.zeros((1, self._n_embd), np.float32)

    def _see(
        self, before: Sequence[int], batch: Sequence[int], states: npt.NDArray[np.float32]
    ) -> None:
        """After ``before``, the model has computed ``batch``, with a state after each token."""
        if before != self._tokens[: len(before)]:
            self._start_after(before)
        else:
            self._go_back(len(before), batch[0])
        self._ahead = None
        self._tokens += batch
        self._states = np.concatenate([self._states, states])
        if len(self._states) > self._batch_tokens:
            self._take_in()

    def _start_after(self, before: Sequence[int]) -> None:
        llama_cpp.llama_memory_clear(self._memory, False)
        self._tokens = list(before)
        self._next = self._first = len(before)
        self._states, self._ahead = self._unknown, None

    def _go_back(self, n_tokens: int, follower: int) -> None:
        """Of the text, so many tokens stay, and ``follower`` comes after them."""
        if n_tokens == len(self._tokens) and follower == self._ahead:
            return
        del self._tokens[n_tokens:]
        if self._next > n_tokens:
            self._drop_from(n_tokens)
            self._next, self._states = n_tokens, self._unknown
            self._first = min(self._first, n_tokens)
        else:
            self._states = self._states[: n_tokens - self._next + 1]
        self._ahead = None

    def _take_in(self, ahead: int | None = None) -> bool:
        """Compute all tokens that are known, and one behind them, which then has logits."""
        tokens = self._tokens[self._next :] + ([] if ahead is None else [ahead])
        for at in range(0, len(tokens), self._batch_tokens):
            some = tokens[at : at + self._batch_tokens]
            is_last = ahead is not None and at + len(some) == len(tokens)
            if not self._decode(some, self._next, self._states[: len(some)], is_last):
                self._start_after(self._tokens)
                return False
            self._next += len(some)
            self._states = self._states[len(some) :]
        self._ahead = ahead
        return True

    def _decode(
        self,
        tokens: Sequence[int],
        position: int,
        states: npt.NDArray[np.float32],
        is_wanted: bool,
    ) -> bool:
        """Compute tokens from ``position`` on, each with the state before it; False: it failed."""
        n_tokens = len(tokens)
        if position + n_tokens - self._first > self._n_ctx:
            self._first = position - self._n_ctx // 2
            llama_cpp.llama_memory_seq_rm(self._memory, 0, -1, self._first)
        ids = (ctypes.c_int32 * n_tokens)(*tokens)
        positions = (ctypes.c_int32 * n_tokens)(*range(position, position + n_tokens))
        wanted = (ctypes.c_int8 * n_tokens)(*[0] * (n_tokens - 1), is_wanted)
        batch = llama_cpp.llama_batch_get_one(ids, n_tokens)
        batch.pos, batch.logits = positions, wanted
        batch.embd = np.ascontiguousarray(states).ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        n_threads = threads_now(self._n_threads)
        if n_threads != self._computing:
            llama_cpp.llama_set_n_threads(self._handle, n_threads, n_threads)
            self._computing = n_threads
        self._hook.begin(n_tokens)
        status = llama_cpp.llama_decode(self._handle, batch)
        self._hook.finish(complete=status == 0)
        return bool(status == 0)

    def _drop_from(self, position: int) -> None:
        llama_cpp.llama_memory_seq_rm(self._memory, 0, position, -1)

    def _most_likely(self) -> int:
        logits = llama_cpp.llama_get_logits_ith(self._handle, -1)
        return int(np.argmax(np.ctypeslib.as_array(logits, (self._n_vocab,))))
