"""Where llama.cpp meets a stack: the nodes of its graph whose weights lie in planes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from ondevice.disk.reader import PAGE
from ondevice.errors import ModelFileError
from ondevice.gguf import TensorInfo
from ondevice.holding.experts.experts import Experts
from ondevice.holding.stack import _layout
from ondevice.holding.stack._file import Block, StackFile
from ondevice.holding.stack._layout import BASE_PLANES, FIRST_PLANE
from ondevice.holding.stack._planes import Planes, Scratch
from ondevice.llama import OP_CUSTOM, OP_NONE, Actions, Tensor

#: Gives the addresses of these tensors' bytes, which stay there until the next call.
Fetch = Callable[[Sequence[TensorInfo]], list[int]]

#: A tensor, and what puts it at an address.
_Place = tuple[TensorInfo, Callable[[int], None]]

_I32 = 26  # ggml's number of that type


class Products:
    """A handler of the eval hook: computes with what is resident of a stack.

    ``resident`` is the address at which the file is mirrored in RAM, ``mapped`` the one where the
    system maps it: rows of tables are looked up there.
    """

    only_at_weights = True

    def __init__(self, file: StackFile, resident: int, mapped: int, threads: int) -> None:
        self._file = file
        self._resident = resident
        self._mapped = mapped
        columns = max(matrix.shape.columns for matrix in file.matrices.values())
        self.scratch = Scratch(columns, threads)
        self._planes = self._planes_at(resident, file.matrices)
        self._tables = self._planes_at(mapped, file.tables)

    def use(self, blocks: Sequence[Block]) -> None:
        """Compute with these blocks, some first ones of the file, and no others."""
        for matrices in (self._planes, self._tables):
            for planes in matrices.values():
                planes.levels[:] = BASE_PLANES
            for block in blocks:
                if block.id.matrix in matrices:
                    matrices[block.id.matrix].levels[block.id.chunk] = block.id.plane + 1

    def use_at_most(self, levels: Mapping[str, npt.NDArray[np.int32]]) -> None:
        """Compute with no more than so many planes of each chunk of these matrices."""
        for matrices in (self._planes, self._tables):
            for name in levels.keys() & matrices.keys():
                at_most = np.minimum(matrices[name].levels, levels[name])
                matrices[name].levels[:] = at_most

    def inspect(self, node: Tensor) -> Actions | None:
        """Take over what reads our matrices, and point all other weights at their bytes."""
        for place, operand in enumerate(node.operands()):
            root = Tensor.from_address(operand.view_src) if operand.view_src else operand
            weight = self._file.gguf.tensors.get(root.name) if root.op == OP_NONE else None
            if weight is None:
                continue
            operation = _operation(node)
            if weight.name not in self._file.matrices:
                stays = weight.name in self._file.stays_on_disk
                root.data = (self._mapped if stays else self._resident) + weight.offset
                operand.data = root.data + operand.view_offs
            elif place == 0 and operation == "GET_ROWS":
                (self._tables.get(weight.name) or self._planes[weight.name]).look_up_node(node)
            elif place == 0 and operation in ("MUL_MAT", "MUL_MAT_ID"):
                return self._multiply(node, weight.name)
            else:
                raise ModelFileError(
                    f"{self._file.gguf.path.name} cannot be used: {operation} on {weight.name} "
                    "is not known for stacks. Pack the model again with this version."
                )
        return None

    def _multiply(self, node: Tensor, name: str) -> Actions | None:
        self._planes[name].multiply_node(node)
        return None

    def _planes_at(self, address: int, names: Collection[str]) -> dict[str, Planes]:
        """These matrices, if the file lay at this address."""
        found = {}
        for name in names:
            matrix = self._file.matrices[name]
            found[name] = Planes(matrix.shape, self.scratch)
            _place_base(found[name], address + matrix.base.offset)
        for block in self._file.blocks:
            if block.id.matrix in found:
                _place_block(found[block.id.matrix], block, address + block.tensor.offset)
        return found


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows of a matrix that are computed at once, and what must be fetched for that."""

    rows: range
    absent: list[_Place]


class StreamedProducts(Products):
    """Computes with more blocks than are resident: others are fetched for each pass.

    Or, if they are of experts, when a pass needs them.
    """

    def __init__(
        self, file: StackFile, resident: int, mapped: int, threads: int, fetch: Fetch
    ) -> None:
        super().__init__(file, resident, mapped, threads)
        self._tables = self._planes_at(mapped, file.matrices)
        self._fetch = fetch
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="planes")
        self._absent: dict[str, list[_Place]] = {}  # of a matrix
        self._groups: dict[str, list[_Group]] = {}  # where that is more than can be held at once
        self._experts: Experts | None = None
        self._generation = 0  # of what is resident: nodes inspected in another are out of date

    def close(self) -> None:
        self._threads.shutdown()

    def set_resident(
        self,
        blocks: Sequence[Block],
        names: Collection[str],
        most_bytes: int,
        experts: Experts | None = None,
    ) -> list[TensorInfo]:
        """Tell what to compute with, which tensors are resident, and how much may be fetched.

        That is ``most_bytes`` at once. Returns what is not resident of ``blocks`` and of what is no
        block, in the order of use, but for what ``experts`` reads.
        """
        self._generation += 1
        self._experts = experts
        self._planes = self._planes_at(self._resident, self._file.matrices)
        self.use(blocks)
        absent: dict[str, list[Block]] = {name: [] for name in self._file.matrices}
        for block in blocks:
            if block.tensor.name not in names:
                absent[block.id.matrix].append(block)
        self._absent, self._groups = {}, {}
        for name, of_matrix in absent.items():
            planes, base = self._planes[name], self._file.matrices[name].base
            if name in self._file.tables or (experts and name in experts):
                continue
            places = [_place_of(planes, block) for block in of_matrix]
            if name not in names:
                places.insert(0, (base, partial(_place_base, planes)))
            elif sum(tensor.n_bytes + 2 * PAGE for tensor, _ in places) > most_bytes:
                self._groups[name] = self._groups_of(planes, of_matrix)
            self._absent[name] = places
        return [tensor for places in self._absent.values() for tensor, _ in places]

    def inspect(self, node: Tensor) -> Actions | None:
        actions = super().inspect(node)
        if _operation(node) == "GET_ROWS":  # a pass starts with its tokens
            return Actions(before=partial(self._is_stale, self._generation))
        return actions

    def _is_stale(self, generation: int) -> bool:
        return generation != self._generation

    def _groups_of(self, planes: Planes, absent: list[Block]) -> list[_Group]:
        """A chunk after the other."""
        return [
            _Group(rows, [_place_of(planes, block) for block in absent if block.id.chunk == n])
            for n, rows in enumerate(planes.shape.chunks())
        ]

    def _multiply(self, node: Tensor, name: str) -> Actions | None:
        if self._experts and name in self._experts:
            return self._experts.inspect(node, name)
        if name in self._groups:
            node.op = OP_NONE  # llama.cpp skips it: we compute it once its operand is there
            return Actions(after=partial(self._multiply_groups, node, name))
        super()._multiply(node, name)
        absent = self._absent[name]
        return Actions(before=partial(self._put, absent)) if absent else None

    def _multiply_groups(self, node: Tensor, name: str) -> None:
        for group in self._groups[name]:
            if group.absent:
                self._put(group.absent)
            self._planes[name].multiply_rows(node, group.rows, self._threads)

    def _put(self, absent: list[_Place]) -> None:
        """Fetch these and let the matrix find them."""
        addresses = self._fetch([tensor for tensor, _ in absent])
        for (_, put), address in zip(absent, addresses, strict=True):
            put(address)


def _place_of(planes: Planes, block: Block) -> _Place:
    return block.tensor, partial(_place_block, planes, block)


def _place_base(planes: Planes, address: int) -> None:
    for number, chunk in enumerate(planes.shape.chunks()):
        parts = [address + at for at in _layout.base_parts(planes.shape, chunk)]
        planes.parts[number, : len(parts)] = parts


def _place_block(planes: Planes, block: Block, address: int) -> None:
    planes.parts[block.id.chunk, FIRST_PLANE + block.id.plane] = address


def _operation(node: Tensor) -> str:
    """What a node computes, also if it was taken over before."""
    if node.op not in (OP_NONE, OP_CUSTOM):
        return node.op_name
    _, operand, *ids = node.operands()
    return "GET_ROWS" if operand.type == _I32 else "MUL_MAT_ID" if ids else "MUL_MAT"
