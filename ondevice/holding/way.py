"""The two protocols of this folder: a way of holding a model, and the weights that it holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Protocol

from ondevice.holding.cells import Cell
from ondevice.messages import KVType, Load, Sizing, Streaming

if TYPE_CHECKING:
    from ondevice.holding.machine import Machine
    from ondevice.holding.plan import Plan
    from ondevice.llama import EvalHook, Model


class Way(Protocol):
    """One way of holding one model. It is made from the file's header; nothing is loaded yet."""

    @property
    def name(self) -> str: ...

    @property
    def drafts_itself(self) -> bool:
        """Whether what is in RAM drafts for all of it, so that another drafter is of no use."""

    def least_bytes(self, n_ctx: int, kv_type: KVType, *, exact: bool = False) -> int:
        """RAM without which the model does not run in this way, context and engine included.

        ``exact``: with no weight left out.
        """

    def plans(
        self, n_ctx: int, kv_type: KVType, drafters: Collection[Plan], machine: Machine
    ) -> Iterator[Plan]:
        """What this way offers with such a context on ``machine``: nothing if it does not fit.

        One of ``drafters`` may propose tokens while weights are streamed, if it fits beside them.
        """

    def cells(self, sizing: Sizing) -> list[Cell]:
        """What is in RAM of each block, in their order, then of what belongs to none.

        Tables that stay on the disk are not among them.
        """

    def open(self, plan: Plan, load: Load, on_progress: Callable[[float], bool]) -> Weights:
        """Hold the model as ``plan`` says.

        ``on_progress`` gets fractions 0 … 1 and returns False to cancel. Raises
        :class:`ModelFileError`, :class:`MemoryShortError` and :class:`LoadCancelled`.
        """


class Weights(Protocol):
    """The weights of a model in use, of which more or fewer can be in RAM; sizes in bytes."""

    @property
    def least_bytes(self) -> int: ...
    @property
    def most_bytes(self) -> int: ...
    @property
    def resident_bytes(self) -> int: ...
    @property
    def own_bytes(self) -> int:
        """Of these, those that are no pages of files, which anyone may take away."""

    @property
    def absent_bytes(self) -> int: ...
    @property
    def streamed_bytes(self) -> int:
        """Of the absent ones, those that are read from the disk when they are needed."""

    @property
    def may_draft(self) -> bool:
        """Whether :meth:`drafting_hook` gives a model of its own now."""

    def load_model(self, *, with_vocabulary: bool = True) -> Model:
        """The model, for contexts that have this hook and for no others."""

    def hook(self) -> EvalHook:
        """What feeds a context of the model."""

    def drafting_hook(self) -> EvalHook | None:
        """What feeds a context that computes with what is in RAM alone; None: there is none."""

    def aim(self, budget_bytes: int) -> None:
        """Take note of a budget; any thread may call this at any time."""

    def settle(self) -> bool:
        """Take up the budget, between two passes; True: it is done, else it needs another call."""

    def describe(self, sizing: Sizing) -> Sizing:
        """Add what only weights of this kind have."""

    def statistics(self) -> Streaming:
        """What was read from the disk so far, the loading included."""

    def close(self) -> None:
        """Give everything back. The model must have been closed before."""
