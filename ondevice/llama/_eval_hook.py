"""Calls what wants to act between the nodes of llama.cpp's compute graph.

llama.cpp asks at every node, in order, whether to end the computed range there, and calls again
once that range is computed (``llama_context_params.cb_eval``). That is about a thousand calls a
token, so a node is inspected once, and the verdict is kept in the node itself: a tag in the
padding of its struct. llama.cpp reuses a graph while it can; a new one has new nodes, in which
ggml zeroes the padding, so no tag outlives its node, even where the address is used again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import llama_cpp

from ondevice.errors import NativeError
from ondevice.llama._ggml import OP_NONE, TAG_OFFSET, TENSOR_HEADER, Tensor, tell_layout
from ondevice.system import compiled

_tag_at = ctypes.c_uint64.from_address

#: True as its result: what is to be done at the nodes has changed, so inspect them all again.
Action = Callable[[], bool | None]


@dataclass(frozen=True)
class Actions:
    """What to do at a node, each time that its graph is computed."""

    before: Action | None = None  # all nodes before it are computed, the node is not
    after: Action | None = None  # the node is computed


class NodeHandler(Protocol):
    """Decides what happens at the nodes of a graph.

    It may have ``in_c(n_tokens)``, which gives a :class:`NativeHandler`, or None for now: what
    inspects the nodes of a new graph in a pass over so many tokens instead. So Python need not be
    asked at nodes for which all handlers of the hook have one. It may also have a true
    ``only_at_weights``: it does nothing but at nodes that read weights, directly or as a view.
    """

    def inspect(self, node: Tensor) -> Actions | None:
        """What to do at ``node``; None: nothing.

        Called once for each node of a new graph, in order and before the node is computed. The
        actions may hold on to the node and its operands: they are forgotten with the graph.
        """


class NativeHandler:
    """In C, ``void take(node, state)``; it has nothing to do once a node is inspected."""

    def __init__(self, take: Any, state: int) -> None:
        take.argtypes, take.restype = (ctypes.c_void_p, ctypes.c_void_p), None
        self.take, self.state = take, state

    def in_c(self, _n_tokens: int) -> NativeHandler:
        return self

    def inspect(self, node: Tensor) -> Actions | None:
        self.take(node.address, self.state)
        return None


def idle_handler() -> NativeHandler | None:
    """One that does nothing; None where it cannot be compiled."""
    library = _library()
    return NativeHandler(library.hook_pass, 0) if library is not None else None


class _Handler(ctypes.Structure):
    """``Handler`` of ``_eval_hook.c``."""

    _fields_ = (("take", ctypes.c_void_p), ("state", ctypes.c_void_p))


_MOST_HANDLERS = 4  # that are in C


class _Native(ctypes.Structure):
    """``Hook`` of ``_eval_hook.c``."""

    plain: int
    slow: int
    n_handlers: int
    at_weights: bool
    last: int | None
    handlers: ctypes.Array[_Handler]
    _fields_ = (
        ("tag_offset", ctypes.c_int64),
        ("plain", ctypes.c_uint64),
        ("slow", ctypes.c_void_p),
        ("n_handlers", ctypes.c_int64),
        ("at_weights", ctypes.c_int64),
        ("last", ctypes.c_void_p),
        ("handlers", _Handler * _MOST_HANDLERS),
    )


SOURCE = compiled.CSource(
    "eval_hook", "ondevice.llama", ("_eval_hook.c",), headers=(TENSOR_HEADER,)
)


@cache
def _library() -> Any:
    """What asks Python only where something may be to do; None: it cannot be compiled."""
    try:
        library = compiled.library(SOURCE)
    except NativeError:
        return None
    tell_layout(library)
    return library


class _OperationCount(ctypes.Structure):
    """``OperationCount`` of ``_eval_hook.c``."""

    unknown: int
    known: ctypes.Array[ctypes.c_uint8]
    _fields_ = (
        ("unknown", ctypes.c_int64),
        ("known", ctypes.c_uint8 * 256),
    )


class OperationCounter(NativeHandler):
    """Counts nodes of other operations than ``known``, in new graphs."""

    def __init__(self, known: Iterable[int], library: Any) -> None:
        self._counter = _OperationCount()
        for op in known:
            self._counter.known[op] = 1
        super().__init__(library.hook_count, ctypes.addressof(self._counter))

    def take_count(self) -> int:
        """The nodes that were counted since this was last asked."""
        count, self._counter.unknown = self._counter.unknown, 0
        return count


def operation_counter(known: Iterable[int]) -> OperationCounter | None:
    """None where it cannot be compiled."""
    library = _library()
    return OperationCounter(known, library) if library is not None else None


def _only_at_weights(handler: NodeHandler) -> bool:
    return getattr(handler, "only_at_weights", False)


@dataclass(eq=False, slots=True)
class _Stop:
    """A node at which something happens."""

    first: bool  # the first node of its graph
    before: list[Action] = field(default_factory=list)
    after: list[Action] = field(default_factory=list)
    next: _Stop | None = None  # the node after it, if something happens before that one


class EvalHook:
    """Runs the actions of its handlers, in the order of the handlers.

    A hook belongs to one context, which calls :meth:`finish` after each ``llama_decode``.
    """

    def __init__(self, *handlers: NodeHandler) -> None:
        self.handlers = handlers
        self._inspectors: Sequence[NodeHandler] = handlers  # what inspects nodes in their place
        self._error: BaseException | None = None
        self._stops: dict[int, _Stop] = {}  # tag → what happens there
        #: Lower tags than that of nodes where nothing happens mean nothing.
        self._native = _Native(tag_offset=TAG_OFFSET, plain=1, n_handlers=-1)
        self._next_tag = 2
        self._learnt: tuple[Tensor, _Stop] | None = None  # the last node that was inspected here
        self._entered: _Stop | None = None  # the node whose ``before`` has been run
        self._begun: _Stop | None = None  # that made its own verdict stale; ``after`` is to come
        self._skipped_op = OP_NONE
        self._slow = llama_cpp.ggml_backend_sched_eval_callback(self._on_node)
        self._native.slow = compiled.address_of(self._slow)
        #: What llama.cpp calls at each node, a ``ggml_backend_sched_eval_callback``, and its data.
        self.callback: Any = self._slow
        self.data = ctypes.c_void_p(ctypes.addressof(self._native))
        if (library := _library()) is not None:
            function = compiled.address_of(library.hook_on_node)
            self.callback = llama_cpp.ggml_backend_sched_eval_callback(function)

    def add(self, handler: NodeHandler) -> None:
        """Run the actions of one more handler, after those of the others."""
        self.handlers = *self.handlers, handler

    def begin(self, n_tokens: int) -> None:
        """Take note that ``llama_decode`` is to come, with so many tokens."""
        some = [
            (handler, handler.in_c(n_tokens) if hasattr(handler, "in_c") else None)
            for handler in self.handlers
        ]
        known = [native for _, native in some if native]
        n_handlers, at_weights = len(known), len(known) < len(some)
        self._inspectors = [native or handler for handler, native in some]
        suits = all(native or _only_at_weights(handler) for handler, native in some)
        if n_handlers > _MOST_HANDLERS or not suits:
            n_handlers, at_weights, self._inspectors = -1, False, self.handlers
        if (n_handlers < 0, at_weights) != (self._native.n_handlers < 0, self._native.at_weights):
            self._forget()  # graphs that were inspected otherwise, too
        self._native.n_handlers, self._native.at_weights = n_handlers, at_weights
        for place, handler in zip(self._native.handlers, known, strict=False):
            place.take, place.state = compiled.address_of(handler.take), handler.state

    def finish(self, *, complete: bool) -> None:
        """Take note that ``llama_decode`` has returned, ``complete`` if it says that all is well.

        Raises what an action has raised. The logits are worthless then, whatever ``llama_decode``
        says: it takes a graph that the callback ended for a computed one.
        """
        error, self._error = self._error, None
        self._learnt = self._entered = self._begun = None
        self._native.last = None
        if error is not None:
            self._forget()
            raise error
        if not complete:  # a graph may have been inspected in part
            self._forget()

    def _forget(self) -> None:
        """Make all tags stale: every node is inspected again."""
        self._stops.clear()
        self._native.plain = self._next_tag
        self._next_tag += 1

    def _on_node(self, address: int, ask: bool, _user_data: int | None) -> bool:
        """True if asked: end the range with this node. True after it: go on with the graph."""
        tag = _tag_at(address + TAG_OFFSET).value
        if tag == self._native.plain:
            return not ask
        if self._error is not None:
            return self._skip(address, ask)
        try:
            stop = self._stops.get(tag)
            if stop is None:
                return self._learn(Tensor.from_address(address)) if ask else self._end_begun()
            return self._enter(stop) if ask else self._leave(stop)
        except BaseException as error:  # nothing may be raised through llama.cpp
            self._error = error
            self._native.n_handlers = -1
            self._forget()
            return self._skip(address, ask)

    def _learn(self, node: Tensor) -> bool:
        """Inspect a node. Each node of a graph that is new is a range of its own."""
        last = self._native.last
        if self._learnt is None:
            self._forget()
        stop = _Stop(first=last is None)
        for handler in self._inspectors:
            if actions := handler.inspect(node):
                stop.before += [actions.before] if actions.before else []
                stop.after += [actions.after] if actions.after else []
        if stop.first or stop.before or stop.after:
            self._mark(node, stop)
        else:
            node.tag = self._native.plain
        if stop.before and last is not None:
            previous, previous_stop = self._learnt or (node, stop)
            if previous.address != last:  # it was inspected in C
                previous, previous_stop = Tensor.from_address(last), _Stop(first=False)
            self._mark(previous, previous_stop)
            previous_stop.next = stop
        self._learnt, self._native.last = (node, stop), node.address
        if self._run(stop.before):
            self._begun = stop
        return True

    def _mark(self, node: Tensor, stop: _Stop) -> None:
        if node.tag <= self._native.plain:
            node.tag = self._next_tag
            self._stops[self._next_tag] = stop
            self._next_tag += 1

    def _enter(self, stop: _Stop) -> bool:
        """A node that was inspected before is to be computed."""
        self._learnt = self._native.last = None
        if stop.before and self._entered is not stop:
            if not stop.first:
                raise NativeError("llama.cpp computed a graph in another order than before.")
            if self._run(stop.before):
                self._begun = stop
                return True  # the next node is inspected, which is done once this one is computed
        return bool(stop.after or stop.next)

    def _leave(self, stop: _Stop) -> bool:
        """The range that ends with this node has been computed."""
        self._run(stop.after)
        if stop.next is not None:
            self._run(stop.next.before)
        self._entered = stop.next
        return True

    def _end_begun(self) -> bool:
        """A node has been computed whose verdict is stale."""
        begun, self._begun = self._begun, None
        if begun is not None:
            self._run(begun.after)
        return True

    def _run(self, actions: list[Action]) -> bool:
        """True if one of them has made the verdicts stale."""
        stale = False
        for action in actions:
            stale = bool(action()) or stale
        if stale:
            self._forget()
        return stale

    def _skip(self, address: int, ask: bool) -> bool:
        """After an error: compute nothing more, for weights may point nowhere."""
        node = Tensor.from_address(address)
        if ask:
            self._skipped_op, node.op = node.op, OP_NONE
        elif node.op == OP_NONE:
            node.op = self._skipped_op
        return ask
