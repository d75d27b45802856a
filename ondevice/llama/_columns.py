"""Has a pass of a few tokens compute for each what it would come to alone, to the last bit.

llama.cpp computes one column and several with other kernels, and not all of them add up in the
same order: products with weights in F32, F16, BF16 and IQ4_NL, and attention that is shared out
among threads. Where they do not agree, the node is computed once for each column.
"""

from __future__ import annotations

from functools import partial

from ondevice.llama._eval_hook import Actions, OperationCounter, operation_counter
from ondevice.llama._ggml import OP_CUSTOM, OP_MUL_MAT, OP_MUL_MAT_ID, OP_NONE, Tensor, op_number
from ondevice.llama._product import MOST_COLUMNS, columns_agree, compute_nodes

_ATTENTION = op_number("FLASH_ATTN_EXT")
#: With so few rows, ggml multiplies each row of an expert by itself.
_EXPERTS = OP_MUL_MAT_ID
_F32 = 0  # ggml's number of that type

#: What is computed for each column by itself, however many there are; or, in recurrent blocks, for
#: one after the other.
_ALIKE = {
    op_number(name)
    for name in (
        *("ADD", "ADD_ID", "ADD1", "ARGSORT", "CLAMP", "CONCAT", "CONT", "COS", "CPY", "DIV"),
        *("DUP", "FILL", "GET_ROWS", "GLU", "L2_NORM", "LOG", "MEAN", "MUL", "NORM", "PERMUTE"),
        *("REPEAT", "RESHAPE", "RMS_NORM", "ROPE", "SCALE", "SET_ROWS", "SIN", "SOFT_MAX"),
        *("SQR", "SQRT", "SUB", "SUM_ROWS", "TOP_K", "TRANSPOSE", "UNARY", "VIEW"),
        *("GATED_DELTA_NET", "RWKV_WKV6", "RWKV_WKV7", "SSM_CONV", "SSM_SCAN"),
    )
} | {_EXPERTS, OP_CUSTOM}


class Columns:
    """A handler of the eval hook, after those that say where weights are.

    Which of its dimensions counts the tokens is told from the graph of a single one, so such a
    pass must come first: see :attr:`are_known`. Where that has nothing to be computed by column,
    no graph is looked at any more, but for operations that are not known.
    """

    def __init__(self, most: int) -> None:
        """``most`` tokens of a pass have logits."""
        self._most = most
        self._n_threads = self._n_tokens = 0
        self._wanted = False  # that the pass under way is one by one
        self._has_looked = False  # at the graph of a single token
        self._columns_of_one: dict[str, int] = {}  # name of a product → its columns for one token
        self._puzzles: set[str] = set()
        self._taken: dict[int, int] = {}  # address of a node that is skipped now → its operation
        self._counter = operation_counter(_ALIKE)

    @property
    def are_known(self) -> bool:
        """Whether a pass of 2 to :attr:`most` tokens will be, or has been, as one by one."""
        return self._has_looked and not self._puzzles

    @property
    def are_ours(self) -> bool:
        """Whether no product and no attention is llama.cpp's: nothing depends on threads either."""
        return self.are_known and not self._columns_of_one

    @property
    def most(self) -> int:
        """Tokens of a pass that can be as one by one."""
        return MOST_COLUMNS if self._columns_of_one else self._most

    def in_c(self, _n_tokens: int) -> OperationCounter | None:
        """A counter, of what would be a puzzle, where nothing is to be computed by column."""
        is_watched = self._n_tokens == 1 or self._wanted
        return None if is_watched and not self.are_ours else self._counter

    def begin(self, n_tokens: int, n_outputs: int, n_threads: int) -> None:
        """A pass is to come. It is to be as one by one if all its tokens have logits."""
        self._n_tokens, self._n_threads = n_tokens, n_threads
        self._wanted = 1 < n_tokens == n_outputs <= self.most

    def finish(self) -> None:
        """It has been computed."""
        if self._counter is not None and self._counter.take_count() and self._wanted:
            self._puzzles.add("an operation that no single token had")

    def inspect(self, node: Tensor) -> Actions | None:
        if node.op == OP_NONE and node.address in self._taken:
            node.op = self._taken.pop(node.address)  # it is inspected again, or there was an error
        self._has_looked |= self._n_tokens == 1
        op = node.op
        if op in _ALIKE or not (self._n_tokens == 1 or self._wanted):
            return None
        if op == OP_NONE:
            # Other handlers compute it, always or while its weights come in slices.
            op = OP_MUL_MAT
            if node.src[2] or node.has_function:  # those of experts, or of ours
                return None
        if op not in (OP_MUL_MAT, _ATTENTION):
            self._puzzles.add(node.op_name)
            return None
        n_columns = _columns(node, op)
        if self._n_tokens == 1:
            if op == OP_MUL_MAT and next(node.operands()).ne[0] == 1:
                self._puzzles.add("a product that adds up tokens")  # linear attention of MiniMax-01
            if (self._columns_of_one.setdefault(node.name, n_columns) == 1) != (n_columns == 1):
                self._puzzles.add(node.name)
        elif self._has_looked:
            known = self._columns_of_one.get(node.name)
            if known is None or not self._fits(node, op, known):
                self._puzzles.add(node.name)
            elif known == 1 < n_columns and not self._agree(node, op):
                return Actions(before=partial(self._skip, node), after=partial(self._compute, node))
        return None

    def _fits(self, node: Tensor, op: int, known: int) -> bool:
        """Whether each token has what a single one had: ``known`` columns."""
        x = Tensor.from_address(_columns_of(node, op))
        if known == 1:  # or a product of its own, with one column
            return self._n_tokens in (x.ne[1], x.ne[2] if x.ne[1] == 1 else 0)
        return x.ne[1] == known or x.ne[1] != self._n_tokens

    def _skip(self, node: Tensor) -> None:
        """Have llama.cpp pass over a node; it computes what the node needs."""
        if node.op != OP_NONE:  # else another handler has computed it
            self._taken[node.address], node.op = node.op, OP_NONE

    def _compute(self, node: Tensor) -> None:
        if (op := self._taken.pop(node.address, OP_NONE)) != OP_NONE:
            node.op = op
            columns = range(_columns(node, op))
            compute_nodes([_column(node, op, n) for n in columns], self._n_threads)

    def _agree(self, node: Tensor, op: int) -> bool:
        if op == _ATTENTION:
            return False  # not among threads, if it is long
        matrix, x = node.operands()
        return x.type == _F32 and columns_agree(
            matrix.type, matrix.ne[0], matrix.ne[1], self._n_threads
        )


def _columns(node: Tensor, op: int) -> int:
    """Columns of a product, or queries of an attention."""
    return int(Tensor.from_address(_columns_of(node, op)).ne[1])


def _columns_of(node: Tensor, op: int) -> int:
    address = node.src[0 if op == _ATTENTION else 1]
    assert address is not None
    return int(address)


def _column(node: Tensor, op: int, n: int) -> tuple[Tensor, list[Tensor | None]]:
    """A node for column ``n`` alone, and its operands."""
    operands = [Tensor.from_address(address).copy() if address else None for address in node.src]
    result = node.copy()
    if op == _ATTENTION:  # queries, keys, values, mask: (…, n_tokens, …); result: (…, …, n_tokens)
        _cut(result, 2, n)
        cut = operands[0], operands[3]
    else:
        _cut(result, 1, n)
        cut = (operands[1], None)
    for operand in filter(None, cut):
        _cut(operand, 1, n)
    return result, operands


def _cut(tensor: Tensor, dimension: int, n: int) -> None:
    """Leave only what has index ``n`` in a dimension."""
    assert tensor.data is not None
    tensor.data += n * tensor.nb[dimension]
    tensor.ne[dimension] = 1
