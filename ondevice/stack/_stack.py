"""A stack in use: as many of its blocks in RAM as the budget allows, more or fewer at any time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from ondevice.errors import LoadCancelled, MemoryShortError, ModelFileError
from ondevice.llama import (
    OP_CUSTOM,
    OP_NONE,
    Actions,
    Model,
    Planes,
    Tensor,
    checksum,
    default_threads,
    scratch,
)
from ondevice.stack._file import Matrix, StackFile
from ondevice.stack._layout import BASE_PLANES
from ondevice.weights.gguf import GGUFFile, TensorInfo
from ondevice.weights.reader import PAGE, Arena, Reader, Span

_PORTION = 32 << 20  # bytes that are read while those before them are checked


class Stack:
    """The first ``budget_bytes`` of a stack's file: give it to an ``EvalHook``.

    ::

        stack = Stack(gguf.read(path), budget_bytes)
        model = stack.load_model()
        context = Context(model, n_ctx=…, eval_hook=EvalHook(stack))
        …
        stack.resize(other_budget)  # between two calls of ``decode``
        …
        context.close(); model.close(); stack.close()

    The memory mirrors the file from its first byte to the last one that is loaded, since blocks
    lie in the order of loading. So growing is one read, and shrinking gives the end back.

    Raises :class:`MemoryShortError` if even the base does not fit, :class:`ModelFileError` for a
    damaged file and :class:`LoadCancelled` when ``on_progress`` (0 … 1) returns False.
    """

    def __init__(
        self,
        file: GGUFFile,
        budget_bytes: int | None = None,
        *,
        threads: int | None = None,
        on_progress: Callable[[float], bool] = lambda _: True,
    ) -> None:
        self.file = StackFile.of(file)
        self._reader = Reader([file.path])
        self._end = 0  # bytes of the file that are in RAM
        self.n_blocks = 0  # that are loaded
        columns = max(matrix.shape.columns for matrix in self.file.matrices.values())
        self._scratch = scratch(columns, threads or default_threads())
        try:
            self._arena = Arena(-(-file.file_bytes // PAGE) * PAGE)
            self._planes = {name: self._at(matrix) for name, matrix in self.file.matrices.items()}
            self.resize(budget_bytes, on_progress=on_progress)
        except BaseException:
            self.close()
            raise

    @property
    def resident_bytes(self) -> int:
        """RAM that the weights take."""
        return -(-self._end // PAGE) * PAGE

    @property
    def bytes_read(self) -> int:
        return self._reader.bytes_read

    def load_model(self) -> Model:
        """The model, for contexts that have this stack in their eval hook and for no others."""
        path = self.file.gguf.path
        return Model(path, use_extra_bufts=False, hollow=[self.file.as_llama_sees_it()])

    def close(self) -> None:
        """Give the memory back. The model must have been closed before."""
        self._reader.close()

    def resize(
        self,
        budget_bytes: int | None,
        *,
        on_progress: Callable[[float], bool] = lambda _: True,
    ) -> None:
        """Have as many blocks in RAM as ``budget_bytes`` allow; None: all of them.

        Between two calls of ``decode``: the KV cache stays what it is. Raises like the
        constructor; what was loaded then is as before.
        """
        file = self.file
        budget = self._arena.n_bytes if budget_bytes is None else budget_bytes
        if budget < -(-file.base_end // PAGE) * PAGE:
            raise MemoryShortError(
                f"{file.gguf.path.name} needs at least {file.base_end / 1e6:.0f} MB of RAM for "
                f"weights, and may have {budget / 1e6:.0f} MB. "
                "Allow it more with --ram, or choose a smaller model."
            )
        wanted = file.prefix(budget // PAGE * PAGE)
        end = file.blocks[wanted - 1].end if wanted else file.base_end
        if end > self._end:
            self._read(self._end, end, on_progress)
        self._set_levels(wanted)
        kept = -(-end // PAGE) * PAGE
        if end < self._end:
            self._arena.release(kept, -(-self._end // PAGE) * PAGE - kept)
        self._end = end
        self.n_blocks = wanted

    def set_levels(self, levels: Mapping[str, npt.NDArray[np.int32]]) -> None:
        """Compute matrices with so many planes of each chunk, of those that are loaded.

        For measuring what planes are worth; the next :meth:`resize` ends it.
        """
        self._set_levels(self.n_blocks)
        for name, level in levels.items():
            self._planes[name].levels[:] = np.minimum(self._planes[name].levels, level)

    def inspect(self, node: Tensor) -> Actions | None:
        """Take over the products of our matrices, and point all other weights at their bytes."""
        for place, operand in enumerate(node.operands()):
            root = Tensor.from_address(operand.view_src) if operand.view_src else operand
            weight = self.file.gguf.tensors.get(root.name) if root.op == OP_NONE else None
            if weight is None:
                continue
            planes = self._planes.get(weight.name)
            if planes is None:
                root.data = self._arena.address + weight.offset
                operand.data = root.data + operand.view_offs
                continue
            operation = node.op_name
            if node.op == OP_CUSTOM or (place == 0 and planes.take_over(node)):
                return None
            raise ModelFileError(
                f"{self.file.gguf.path.name} cannot be used: {operation} on {weight.name} is not "
                "known for stacks. Pack the model again with this version."
            )
        return None

    def _at(self, matrix: Matrix) -> Planes:
        """The matrix at the place of its base, with no planes yet."""
        shape, start = matrix.shape, self._arena.address + matrix.base.offset
        nibbles = start + shape.scales_bytes
        planes = Planes(shape, start, nibbles, self._scratch)
        first = nibbles + shape.nibbles_bytes
        for plane in range(BASE_PLANES):
            for number, rows in enumerate(shape.chunks()):
                at = plane * shape.rows + rows.start
                planes.planes[number, plane] = first + at * shape.columns // 8
        return planes

    def _set_levels(self, n_blocks: int) -> None:
        for planes in self._planes.values():
            planes.levels[:] = BASE_PLANES
        for block in self.file.blocks[:n_blocks]:
            planes = self._planes[block.id.matrix]
            planes.planes[block.id.chunk, block.id.plane] = (
                self._arena.address + block.tensor.offset
            )
            planes.levels[block.id.chunk] = block.id.plane + 1

    def _read(self, start: int, end: int, on_progress: Callable[[float], bool]) -> None:
        """Have the bytes of the file from ``start`` to ``end`` in the arena, checked."""
        self._reader.check()
        unchecked = [t for t in self.file.gguf.tensors.values() if start <= t.offset < end]
        portions = range(start // PAGE * PAGE, end, _PORTION)
        readings = [
            (at + _PORTION, self._reader.start(span, self._arena.view[at : at + span.n_bytes]))
            for at in portions
            for span in [Span.around(0, at, min(_PORTION, end - at))]
        ]
        try:
            for done, reading in readings:
                reading.wait()
                while unchecked and unchecked[0].offset + unchecked[0].n_bytes <= done:
                    self._check(unchecked.pop(0))
                if not on_progress(min(done, end) / end):
                    raise LoadCancelled
        finally:
            for _, reading in readings:
                reading.cancel()

    def _check(self, tensor: TensorInfo) -> None:
        found = checksum(self._arena.address + tensor.offset, tensor.n_bytes)
        if found != self.file.checksums[tensor.name]:
            raise ModelFileError(
                f"{self.file.gguf.path.name} is damaged: the bytes of {tensor.name} are not those "
                "that were written. Copy the file anew, or pack the model again."
            )
