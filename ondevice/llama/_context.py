"""A context: the KV cache of one sequence and the decoding of tokens into it."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import llama_cpp
import numpy as np
import numpy.typing as npt

from ondevice.errors import MemoryShortError, NativeError
from ondevice.gguf.architectures import LOGITS_OF_ALL
from ondevice.llama import _log
from ondevice.llama._attention import attention_for
from ondevice.llama._columns import Columns
from ondevice.llama._eval_hook import EvalHook
from ondevice.llama._model import Model
from ondevice.llama._next_states import keep_next_states, next_states
from ondevice.llama._product import MOST_COLUMNS
from ondevice.llama._thread_trials import ThreadTrials
from ondevice.system.cores import default_threads

GGML_TYPES = {"f16": 1, "q8_0": 8, "q4_0": 2}  # enum ggml_type
_POOLING_NONE, _POOLING_MEAN, _POOLING_CLS, _POOLING_LAST = range(4)  # enum llama_pooling_type
#: Sequences: what is decoded; what is on its way in or out, or was there before the last pass; and
#: what was restored of a sliding window, whose cells llama.cpp would give to other tokens.
_LIVE, _OTHER, _GUARD = 0, 1, 2
_LENGTH = 8  # bytes before each piece of a state
_RECURRENT = llama_cpp.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY  # of a hybrid, that and no attention
#: Architectures whose memory goes in and out only as a whole: their computing state is of all
#: tokens (DeepSeek 4 compresses them, MiniMax M3 orders them otherwise).
_WHOLE_STATES = frozenset({"deepseek4", "minimax-m3"})
_ABORTED = 2  # llama_decode's answer after the abort callback said so

#: Text that is empty until :func:`interrupt`. llama.cpp asks at each node of a graph whether to go
#: on, a thousand times a token, which from Python costs some percent. So it asks C: ``strlen`` of
#: this text is 0, "go on", or 1. All contexts look at it, for the process does one thing at a time.
_interrupted = ctypes.create_string_buffer(2)
_strlen = ctypes.cast(
    ctypes.CDLL("msvcrt" if os.name == "nt" else None).strlen, llama_cpp.ggml_abort_callback
)


def end_when_interrupted(context: int) -> None:
    """Have what a ``llama_context *`` computes be ended by :func:`interrupt`."""
    llama_cpp.llama_set_abort_callback(context, _strlen, _interrupted)


class Interrupted(Exception):
    """A computation was ended by :func:`interrupt`."""


def interrupt(now: bool) -> None:
    """Have what is being computed end, and all that is begun, until this is taken back."""
    _interrupted.value = b"\1" if now else b""


#: Of the nodes of a graph, so many are computed, about: the others are views. Until one is counted.
_COMPUTED = 0.6

#: Positions of one batch that may have logits. llama.cpp sizes its compute buffer by it, and by
#: the whole batch if not told: 515 instead of 26 MiB for a vocabulary of 262,144.
MAX_OUTPUTS = 16


#: Of :meth:`Context.follow`.
Follower = Callable[[Sequence[int], Sequence[int], npt.NDArray[np.float32]], None]


class Context:
    """The tokens that a model has seen, with their KV cache of ``n_ctx`` positions.

    ``batch_tokens`` is the most that is computed at once. ``embeddings`` makes a context that only
    :meth:`embed` may use, ``keeps_state`` one that can :meth:`export` what it has computed. Of
    recurrent models, that has two states in RAM instead of one.

    Raises :class:`MemoryShortError` when the KV cache or the buffers cannot be allocated.
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int,
        kv_type: str = "f16",
        n_threads: int | None = None,
        batch_tokens: int = 512,
        eval_hook: EvalHook | None = None,
        embeddings: bool = False,
        max_outputs: int = MAX_OUTPUTS,
        keeps_state: bool = False,
    ) -> None:
        self.model = model
        #: What the KV cache holds: a token id for each position.
        self.tokens: list[int] = []
        self.batch_tokens = batch_tokens
        self.max_outputs = max_outputs
        self._hook = eval_hook or EvalHook()
        params = llama_cpp.llama_context_default_params()
        params.n_batch = params.n_ubatch = batch_tokens
        params.n_outputs_max = batch_tokens if embeddings else max_outputs
        if embeddings:
            own = model.pooling in (_POOLING_CLS, _POOLING_LAST)
            params.embeddings = True
            self._pooling = model.pooling if own else _POOLING_MEAN
            params.pooling_type = self._pooling if model.cannot_chat else _POOLING_NONE
        self.n_threads = params.n_threads = params.n_threads_batch = n_threads or default_threads()
        params.type_k = params.type_v = GGML_TYPES[kv_type]
        params.no_perf = True
        #: Whether :meth:`export` and :meth:`restore` may be used.
        self.keeps_state = keeps_state and model.architecture not in _WHOLE_STATES
        self._is_guarded = bool(self.keeps_state and model.window and not model.is_recurrent)
        if self.keeps_state:
            params.n_seq_max, params.kv_unified = 3 if self._is_guarded else 2, True
            # One for each, or it aborts.
            params.n_outputs_max = max(params.n_outputs_max, params.n_seq_max)
        self._due: list[int] = []  # the last of the tokens, as far as they are to be decoded again
        self._remembered: int | None = None  # tokens that the other sequence holds
        self._checkpoint: tuple[int, bytearray] | None = None  # tokens, and the state after them
        self._follower: Follower | None = None
        self._columns: Columns | None = None
        if (attention := attention_for(self.n_threads)) is not None:
            self._hook.add(attention)
        if eval_hook is not None:
            self._columns = Columns(max_outputs)
            self._hook.add(self._columns)
        if self._hook.handlers:
            params.cb_eval = self._hook.callback
            params.cb_eval_user_data = self._hook.data
        self._params = params
        self._open(n_ctx)

    def _open(self, n_ctx: int) -> None:
        _log.reset()
        self._params.n_ctx = n_ctx
        self._handle = llama_cpp.llama_init_from_model(self.model.handle, self._params)
        if not self._handle:
            raise MemoryShortError(
                f"A context of {n_ctx} tokens cannot be created for "
                f"{self.model.path.name}: {_log.last_error() or 'no reason given'}. Try a "
                "smaller one with --ctx."
            )
        end_when_interrupted(self._handle)
        if self._follower is not None:
            keep_next_states(self._handle, of_all=True)
        self._computing = self.n_threads
        self._trials = ThreadTrials()
        self._memory = llama_cpp.llama_get_memory(self._handle)
        self.n_ctx: int = llama_cpp.llama_n_ctx(self._handle)
        self.kv_bytes = _log.buffer_bytes("KV", "RS")
        self.compute_bytes = _log.buffer_bytes("compute", "output")
        #: Nodes that are computed for a batch of any size, as llama.cpp asks at each.
        self._n_nodes = int(_log.graph_nodes() * _COMPUTED)

    @property
    def handle(self) -> int:
        """``llama_context *``, for the modules of this package."""
        if self._handle is None:
            raise NativeError("The context is closed.")
        return int(self._handle)

    def grow(self, n_ctx: int) -> None:
        """Have ``n_ctx`` positions. What the cache holds stays, or is decoded again with the next
        tokens where llama.cpp does not take it back whole; the logits go.

        For a moment, what the cache holds is in RAM twice. Raises :class:`MemoryShortError`; the
        context then is as large as before.
        """
        before, held = self.n_ctx, self._held
        state = self._export(0, held) if self.keeps_state and held else bytearray()
        self.close()
        try:
            self._open(n_ctx)
        except MemoryShortError:
            self._open(before)
            raise
        finally:
            self._hook.finish(complete=False)  # what it knows is of graphs that are gone
            self._remembered = self._checkpoint = None
            if not self._set(state, 0):
                llama_cpp.llama_memory_clear(self._memory, False)
                self._due = self.tokens[:]

    def close(self) -> None:
        """Free the KV cache and the buffers."""
        if self._handle:
            llama_cpp.llama_free(self._handle)
            self._handle = None

    def decode(
        self,
        batch: Sequence[int],
        cancel: threading.Event | None = None,
        *,
        n_outputs: int = 1,
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> bool:
        """Append ``batch`` to the sequence and compute the logits that follow its last tokens.

        A batch has at most ``batch_tokens``, and ``n_outputs`` is at most ``max_outputs``. While
        the context :attr:`may_verify`, a batch of at most :attr:`most_verified` tokens that all
        have logits gives each of them what it would give alone, to the last bit.
        ``cancel`` ends a batch of more than one token between two nodes of the graph; the answer
        is then False and the sequence as it was, or empty. With one, ``on_progress`` is called
        again and again while such a batch is computed, with the fraction that is done, about.

        Raises :class:`NativeError` when llama.cpp fails, :class:`Interrupted`, and what the actions
        of the eval hook raise; the sequence is then as it was, or empty.
        """
        if 0 < n_outputs < len(batch) and self.model.architecture in LOGITS_OF_ALL:
            return self.decode(
                batch[:-n_outputs], cancel, n_outputs=0, on_progress=on_progress
            ) and self.decode(batch[-n_outputs:], n_outputs=n_outputs)
        together = n_outputs == len(batch) and len(self._due) + n_outputs <= self._most_alike
        if not together and not self._catch_up(cancel):
            return False
        if not self._pass([*self._due, *batch], cancel, len(self._due) + n_outputs, on_progress):
            return False
        self._due.clear()
        self.tokens += batch
        return True

    def _catch_up(self, cancel: threading.Event | None = None) -> bool:
        """Decode again what is due, alone. Answers and raises what :meth:`decode` does."""
        while self._due:
            some = self._due[: self.batch_tokens]
            if not self._pass(some, cancel, len(some) if len(some) <= self._most_alike else 1):
                return False
            del self._due[: len(some)]
        return True

    def _pass(
        self,
        batch: Sequence[int],
        cancel: threading.Event | None,
        n_outputs: int,
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> bool:
        """Decode after what llama.cpp holds. Answers and raises what :meth:`decode` does."""
        if len(batch) > 1:
            self.remember()
        ids = (ctypes.c_int32 * len(batch))(*batch)
        wanted = (ctypes.c_int8 * len(batch))(*[0] * (len(batch) - n_outputs), *[1] * n_outputs)
        native = llama_cpp.llama_batch_get_one(ids, len(batch))
        native.logits = wanted
        if self._columns is not None:
            self._columns.begin(len(batch), n_outputs, self.n_threads)
        self._hook.begin(len(batch))
        self._set_threads()
        started = time.perf_counter()
        with self._abort_on(cancel if len(batch) > 1 else None, on_progress):
            status = llama_cpp.llama_decode(self.handle, native)
        if len(batch) == 1 and status == 0:
            self._trials.took(time.perf_counter() - started)
        try:
            self._hook.finish(complete=status == 0)
            if self._columns is not None:
                self._columns.finish()
            if status == 0 and self._follower is not None:
                states = next_states(self.handle, 0, len(batch), self.model.n_embd_out)
                self._follower(self.tokens[: self._held], batch, states)
        except BaseException:
            self._undo()
            raise
        if status == 0:
            return True
        self._undo()
        if status == _ABORTED and cancel is not None and cancel.is_set():
            return False
        if status == _ABORTED and _interrupted.value:
            raise Interrupted
        raise NativeError(
            f"llama.cpp could not process {len(batch)} tokens (status {status}): "
            f"{_log.last_error() or 'no reason given'}."
        )

    def follow(self, follower: Follower) -> None:
        """Call ``follower`` after each pass, with the tokens before, those of the pass, and the
        states from which a prediction block goes on, shape (n_tokens, n_embd)."""
        self._follower = follower
        keep_next_states(self.handle, of_all=True)

    @property
    def _held(self) -> int:
        """Tokens that llama.cpp has seen, without those that are due."""
        return len(self.tokens) - len(self._due)

    def remember(self) -> None:
        """Have :meth:`truncate` come back to here until the next batch, if it can't go back anyway.

        Nothing is copied: the two sequences part when the next pass writes to one of them.
        """
        if self.keeps_state and not self.can_go_back:
            self._forget()
            llama_cpp.llama_memory_seq_cp(self._memory, _LIVE, _OTHER, -1, -1)
            self._remembered = self._held

    def _forget(self) -> None:
        llama_cpp.llama_memory_seq_rm(self._memory, _OTHER, -1, -1)
        self._remembered = None

    def _come_back(self, remembered: int) -> None:
        """Have what is remembered; all that comes after it is due."""
        self._due = self.tokens[remembered:]
        llama_cpp.llama_memory_seq_rm(self._memory, _LIVE, -1, -1)
        llama_cpp.llama_memory_seq_cp(self._memory, _OTHER, _LIVE, -1, -1)

    @property
    def takes_checkpoints(self) -> bool:
        """Whether :meth:`checkpoint` is of use: it can't go back, but comes back exactly."""
        return self.keeps_state and not self.can_go_back and not self.model.window

    @property
    def checkpoint_bytes(self) -> int:
        """RAM that :meth:`checkpoint` takes."""
        return int(llama_cpp.llama_state_seq_get_size_ext(self.handle, _LIVE, _RECURRENT))

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a place that :meth:`checkpoint` has marked."""
        return self._checkpoint is not None

    def checkpoint(self) -> None:
        """Have :meth:`truncate` come back to here, too, if the context :attr:`takes_checkpoints`.

        There is one such place at a time. Of a hybrid it takes the recurrent state alone: the keys
        and values of other blocks are in the cache anyway. Raises what :meth:`decode` raises.
        """
        self._catch_up()
        if self._checkpoint is None or self._checkpoint[0] != len(self.tokens):
            self._checkpoint = None
            state = bytearray(self.checkpoint_bytes)
            native = (ctypes.c_uint8 * len(state)).from_buffer(state)
            llama_cpp.llama_state_seq_get_data_ext(
                self.handle, native, len(state), _LIVE, _RECURRENT
            )
            self._checkpoint = len(self.tokens), state

    def _go_back(self, to: int) -> bool:
        """Have llama.cpp hold ``to`` tokens, the others being due; False: it can't."""
        if to == self._remembered:
            self._come_back(to)
            return True
        if self._checkpoint is not None and to == self._checkpoint[0]:
            self._forget()
            state = self._checkpoint[1]
            native = (ctypes.c_uint8 * len(state)).from_buffer(state)
            if not llama_cpp.llama_state_seq_set_data_ext(
                self.handle, native, len(state), _LIVE, _RECURRENT
            ):
                return False
        self._due = self.tokens[to:]
        return to > 0 and self._cut(to)

    def _undo(self) -> None:
        """A pass has failed."""
        if self._remembered is not None:
            self._come_back(self._remembered)
        elif not self._cut(self._held):
            self._clear()

    def _cut(self, length: int) -> bool:
        """Have llama.cpp forget the positions from ``length`` on; whether it can."""
        if self._is_guarded:
            llama_cpp.llama_memory_seq_rm(self._memory, _GUARD, length, -1)
        return bool(llama_cpp.llama_memory_seq_rm(self._memory, _LIVE, length, -1))

    def _set_threads(self) -> None:
        """Where that changes no bit, as many as get a core."""
        varies = self._columns is not None and self._columns.are_ours
        n = self._trials.threads_now(self.n_threads) if varies else self.n_threads
        if n != self._computing:
            llama_cpp.llama_set_n_threads(self.handle, n, n)
            self._computing = n

    def embed(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """A vector of the text, of length 1; shape (n_embd,).

        It is the mean of the last hidden states after each token, or the first or last of these if
        the model's file asks for that. ``tokens`` are at most ``n_ctx``, of an encoder at most
        ``batch_tokens``. Raises what :meth:`decode` raises.
        """
        self.truncate(0)
        if self.model.cannot_chat:  # each token sees all others, so all are computed at once
            self.decode(tokens, n_outputs=len(tokens))
            pointer = llama_cpp.llama_get_embeddings_seq(self.handle, 0)
            vector = np.ctypeslib.as_array(pointer, (self.model.n_embd_out,)).copy()
        else:
            vector = self._pooled([*self._states_after(tokens)])
        vector /= max(float(np.linalg.norm(vector)), 1e-12)
        return vector

    def _states_after(self, tokens: Sequence[int]) -> Iterator[npt.NDArray[np.float32]]:
        """The last hidden states after each of ``tokens``, a batch at a time."""
        for at in range(0, len(tokens), self.batch_tokens):
            batch = tokens[at : at + self.batch_tokens]
            self.decode(batch, n_outputs=len(batch))
            pointer = llama_cpp.llama_get_embeddings(self.handle)
            yield np.ctypeslib.as_array(pointer, (len(batch), self.model.n_embd_out)).copy()

    def _pooled(self, states: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        every = np.concatenate(states)
        pooled: npt.NDArray[np.float32]
        if self._pooling == _POOLING_MEAN:
            pooled = every.mean(axis=0)
        else:
            pooled = every[0 if self._pooling == _POOLING_CLS else -1]
        return pooled

    @contextmanager
    def _abort_on(
        self, cancel: threading.Event | None, on_progress: Callable[[float], None]
    ) -> Iterator[None]:
        """Let ``cancel`` end the decoding within this block, and tell how it goes."""
        if cancel is None:
            yield
            return
        asked = 0

        def stop(_: object) -> bool:
            nonlocal asked
            asked += 1
            on_progress(min(asked / self._n_nodes, 1.0) if self._n_nodes else 0.0)
            return cancel.is_set()

        # Asked at each node: nothing beside a batch, but some percent of a single token.
        abort = llama_cpp.ggml_abort_callback(stop)
        llama_cpp.llama_set_abort_callback(self.handle, abort, None)
        try:
            yield
            if not cancel.is_set():
                self._n_nodes = asked  # a few less when a graph is used again
                on_progress(1.0)
        finally:
            end_when_interrupted(self.handle)

    @property
    def can_go_back(self) -> bool:
        """Whether :meth:`truncate` keeps what it is asked to keep.

        The state of recurrent models, and of hybrids of these, has no middle to go back to.
        """
        return not self.model.is_recurrent

    @property
    def can_come_back(self) -> bool:
        """Whether it can go back to where the last batch began, or to what it was to remember.

        What :meth:`truncate` keeps of the tokens after that may have to be decoded once more.
        """
        return self.can_go_back or self.keeps_state

    @property
    def may_verify(self) -> bool:
        """Whether drafted tokens may be decoded together: see :meth:`decode`.

        Only where it :attr:`can_come_back` from those that were wrong, and after a single token has
        been decoded. In a context without an eval hook, products and attention are computed by
        llama.cpp alone: whether they come to the same is then not known, and not looked at.
        """
        return self.can_come_back and (self._columns is None or self._columns.are_known)

    @property
    def most_verified(self) -> int:
        """Tokens that may be decoded together so, the one that was drawn last among them."""
        return max(1, self._most_alike - len(self._due))

    @property
    def _most_alike(self) -> int:
        most = MOST_COLUMNS if self._columns is None else self._columns.most
        return min(most, self.max_outputs)

    @property
    def n_due(self) -> int:
        """Tokens that are decoded once more with the next ones."""
        return len(self._due)

    def truncate(self, length: int) -> int:
        """Forget the positions from ``length`` on; returns how many remain.

        Unless something is :meth:`held_at` that, nothing remains. What is not held is decoded again
        with the next tokens.
        """
        held = self.held_at(length)
        if held < self._held and not self._go_back(held):
            self._clear()
        del self._due[max(0, length - self._held) :]
        del self.tokens[length:]
        if self._checkpoint is not None and self._checkpoint[0] > length:
            self._checkpoint = None
        return len(self.tokens)

    def held_at(self, length: int) -> int:
        """Of so many tokens, the first ones that :meth:`truncate` need not have decoded again."""
        if length >= self._held:
            return self._held
        if self.can_go_back:
            return length
        places = self._remembered, self._checkpoint and self._checkpoint[0]
        return max((at for at in places if at is not None and at <= length), default=0)

    def export(self, start: int, end: int) -> bytearray:
        """What has been computed of the tokens from ``start`` to ``end``.

        Unless it :attr:`can_go_back`, ``end`` is the end of all tokens.

        Together with all before it, for :meth:`restore`. It is of this build of llama.cpp, this
        model and this type of the cache. Only if it :attr:`keeps_state`. Raises what :meth:`decode`
        raises.
        """
        self._catch_up()
        return self._export(start, end)

    def _export(self, start: int, end: int) -> bytearray:
        self._forget()
        state = bytearray()
        for begin, stop in pairwise(self._cuts(start, end)):
            llama_cpp.llama_memory_seq_cp(self._memory, _LIVE, _OTHER, begin, stop)
            try:
                self._append_other(state)
            finally:
                self._forget()
        return state

    def _cuts(self, start: int, end: int) -> list[int]:
        """Where pieces begin and end: of one, llama.cpp gives only what its end looks back on."""
        window = self.model.window
        between = range((start // window + 1) * window, end, window) if self._is_guarded else ()
        return [start, *between, end]

    def _append_other(self, state: bytearray) -> None:
        size = llama_cpp.llama_state_seq_get_size(self.handle, _OTHER)
        state += size.to_bytes(_LENGTH, "little") + bytes(size)
        native = (ctypes.c_uint8 * size).from_buffer(state, len(state) - size)
        llama_cpp.llama_state_seq_get_data(self.handle, native, size, _OTHER)

    def restore(self, parts: Iterable[tuple[Sequence[int], bytes | bytearray]]) -> int:
        """Have the tokens of ``parts``, from the first one on, in place of what there is.

        Each is tokens with what :meth:`export` gave for them. Returns how many tokens there are
        then: it ends with the first part that llama.cpp does not take. The logits go.
        """
        self._clear()
        for tokens, state in parts:
            if not self._set(state, len(self.tokens)):
                break
            self.tokens += tokens
        return len(self.tokens)

    def _set(self, state: bytes | bytearray, after: int) -> bool:
        """Have what :meth:`_export` gave after so many tokens; False: llama.cpp does not take it.

        What attention comes to depends on where cells are: it is summed in stretches of them. So
        each token of a sliding window goes where it was, none in place of one that is out of
        sight, and the next ones come behind.
        """
        start = np.frombuffer(state, np.uint8).ctypes.data
        at = 0
        while at < len(state):
            size = int.from_bytes(state[at : at + _LENGTH], "little")
            at += _LENGTH
            piece = ctypes.cast(start + at, ctypes.POINTER(ctypes.c_uint8))
            taken = at + size <= len(state) and llama_cpp.llama_state_seq_set_data(
                self.handle, piece, size, _OTHER
            )
            if taken:
                llama_cpp.llama_memory_seq_cp(self._memory, _OTHER, _LIVE, -1, -1)
                if self._is_guarded:
                    llama_cpp.llama_memory_seq_cp(self._memory, _OTHER, _GUARD, -1, -1)
            self._forget()
            if not taken:
                if at > _LENGTH:  # what was taken before
                    self._cut(after)
                return False
            at += size
        return at > 0

    def _clear(self) -> None:
        llama_cpp.llama_memory_clear(self._memory, False)
        self.tokens.clear()
        self._due.clear()
        self._remembered = self._checkpoint = None

    def logits(self, back: int = 1) -> npt.NDArray[np.float32]:
        """A copy of the logits after the last decoded token, shape (n_vocab,).

        ``back`` is 2 for the token before the last one, and so on, up to the last ``n_outputs``.
        """
        pointer = llama_cpp.llama_get_logits_ith(self.handle, -back)
        return np.ctypeslib.as_array(pointer, (self.model.n_vocab,)).copy()
