"""With plenty of RAM, llama.cpp holds all weights itself, for good.

They are pages of the file, and products are ours. Where these cannot be compiled, llama.cpp repacks
weights for its fastest kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ondevice.gguf import GGUFFile
from ondevice.holding.cells import Cell, cells_in_ram
from ondevice.holding.machine import Machine
from ondevice.holding.plan import Plan
from ondevice.messages import KVType, Load, Sizing, Streaming
from ondevice.ram.need import need

if TYPE_CHECKING:
    from ondevice.llama import EvalHook, Model, NodeHandler


class Repacked:
    """For a model that fits twice, as it has to where llama.cpp copies the weights."""

    name = "repacked"
    drafts_itself = False

    def __init__(self, file: GGUFFile) -> None:
        self._file = file

    def least_bytes(self, n_ctx: int, kv_type: KVType) -> int:
        wanted = need(self._file, n_ctx, kv_type)
        return wanted.total + wanted.weights

    def plans(
        self, n_ctx: int, kv_type: KVType, drafter: GGUFFile | None, machine: Machine
    ) -> Iterator[Plan]:
        wanted = need(self._file, n_ctx, kv_type)
        if wanted.may_repack(machine.ram.usable):
            yield Plan.in_ram(self, self._file, kv_type, wanted, machine.speeds)

    def cells(self, sizing: Sizing) -> list[Cell]:
        return cells_in_ram(self._file)

    def open(self, plan: Plan, load: Load, on_progress: Callable[[float], bool]) -> RepackedWeights:
        return RepackedWeights(self._file, load.n_threads, on_progress)


class RepackedWeights:
    """They stay as they are."""

    absent_bytes = streamed_bytes = 0
    may_draft = False

    def __init__(
        self, file: GGUFFile, n_threads: int | None, on_progress: Callable[[float], bool]
    ) -> None:
        self._file = file
        self._n_threads = n_threads
        self._on_progress = on_progress
        self._handlers: list[NodeHandler] = []
        self.least_bytes = self.most_bytes = self.resident_bytes = self.own_bytes = 0

    def load_model(self) -> Model:
        from ondevice.llama import Model  # noqa: PLC0415 - native code, for the engine alone
        from ondevice.products import handlers  # noqa: PLC0415

        self._handlers = handlers(self._n_threads)
        model = Model(
            self._file.path,
            use_extra_bufts=not self._handlers,
            on_progress=self._on_progress,
        )
        n_bytes = model.size_bytes
        self.least_bytes = self.most_bytes = self.resident_bytes = n_bytes
        self.own_bytes = 0 if self._handlers else n_bytes
        return model

    def hook(self) -> EvalHook | None:
        from ondevice.llama import EvalHook  # noqa: PLC0415

        return EvalHook(*self._handlers) if self._handlers else None

    def drafting_hook(self) -> EvalHook | None:
        return None

    def aim(self, budget_bytes: int) -> None:
        pass

    def settle(self) -> bool:
        return True

    def describe(self, sizing: Sizing) -> Sizing:
        return sizing

    def statistics(self) -> Streaming:
        return Streaming(resident_bytes=self.resident_bytes)

    def close(self) -> None:
        pass
