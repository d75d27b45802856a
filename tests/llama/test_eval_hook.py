"""The eval hook on a real model: it sees every node, changes nothing, and fails in the open."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from short_model import N_BLOCKS

from ondevice.errors import NativeError
from ondevice.llama import (
    Actions,
    Context,
    EvalHook,
    Model,
    NodeHandler,
    Tensor,
    _eval_hook,
    _ggml,
)
from ondevice.llama._attention import attention_for
from ondevice.products import handlers

TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps for a while."


@pytest.fixture(scope="module")
def model(short: Path) -> Iterator[Model]:
    model = Model(short, use_extra_bufts=False)
    yield model
    model.close()


class Recorder:
    """Writes down what is inspected and what is run; acts where ``wanted`` says so."""

    def __init__(self, wanted: str = "", *, fail: bool = False) -> None:
        self.wanted = wanted
        self.fail = fail
        self.inspected: list[str] = []
        self.run: list[str] = []

    def inspect(self, node: Tensor) -> Actions | None:
        self.inspected.append(node.name)
        if not node.name.startswith(self.wanted) or not self.wanted:
            return None
        name = node.name

        def before() -> None:
            self.run.append(f"before {name}")
            if self.fail:
                raise OSError("the disk is gone")

        return Actions(before=before, after=lambda: self.run.append(f"after {name}"))


def logits(model: Model, *handlers: NodeHandler, lengths: tuple[int, ...]) -> list[bytes]:
    """The logits after each batch of a text that is processed in batches of these lengths."""
    context = Context(model, n_ctx=512, n_threads=1, eval_hook=EvalHook(*handlers))
    tokens = iter(model.tokenize(TEXT) * 30)
    result = []
    for length in lengths:
        context.decode([next(tokens) for _ in range(length)])
        result.append(context.logits().tobytes())
    context.close()
    return result


#: Batches and single tokens by turns, past the 256 positions at which a graph is rebuilt.
LENGTHS = (20, 1, 1, 230, 1, 1, 1, 1, 7, 1, 1)


def test_watching_every_node_changes_no_logit(model: Model) -> None:
    plain = logits(model, lengths=LENGTHS)
    for recorder in (Recorder("ffn_out"), Recorder("norm")):
        assert logits(model, recorder, lengths=LENGTHS) == plain


def test_a_reused_graph_is_inspected_once_and_acted_on_each_time(model: Model) -> None:
    recorder = Recorder("l_out")
    logits(model, recorder, lengths=(1, 1, 1, 1))
    per_token = recorder.run[: 2 * N_BLOCKS]
    assert per_token[:3] == ["before l_out-0", "after l_out-0", "before l_out-1"]
    assert recorder.run == per_token * 4
    graphs = recorder.inspected.count("l_out-4")
    assert graphs < 4  # llama.cpp builds the first graphs anew, then reuses


def test_a_graph_in_place_of_another_is_inspected_anew(model: Model) -> None:
    """Node addresses repeat from graph to graph; what was decided for one must not linger."""
    recorder = Recorder("l_out")
    logits(model, recorder, lengths=LENGTHS)
    assert len(recorder.run) == 2 * N_BLOCKS * len(LENGTHS)


def test_the_first_node_can_be_acted_on(model: Model) -> None:
    names = Recorder()
    logits(model, names, lengths=(1,))
    recorder = Recorder(names.inspected[0])
    logits(model, recorder, lengths=(1, 1, 1))
    assert recorder.run.count(f"before {names.inspected[0]}") == 3


@pytest.mark.parametrize("lengths", [(1,), (8,), (1, 1, 1)], ids=["token", "batch", "reused"])
@pytest.mark.parametrize("node", ["l_out-0", "ffn_norm-3", "result_output", "embd"])
def test_an_error_in_an_action_comes_out_and_the_context_lives_on(
    model: Model, lengths: tuple[int, ...], node: str
) -> None:
    recorder = Recorder(node)
    context = Context(model, n_ctx=512, n_threads=1, eval_hook=EvalHook(recorder))
    tokens = model.tokenize(TEXT)
    for length in lengths[:-1]:
        context.decode(tokens[:length])
    kept = list(context.tokens)
    recorder.fail = True
    with pytest.raises(OSError, match="the disk is gone"):
        context.decode(tokens[: lengths[-1]])
    assert context.tokens == kept
    recorder.fail = False
    context.truncate(0)
    context.decode(tokens)
    again = context.logits().tobytes()
    context.close()
    assert [again] == logits(model, lengths=(len(tokens),))


@pytest.mark.parametrize("compiled", [True, False])
def test_python_is_asked_only_where_something_happens(
    model: Model, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(_eval_hook, "_library", lambda: None)
    asked: list[bool] = []
    on_node = EvalHook._on_node

    def count(hook: EvalHook, address: int, ask: bool, data: int | None) -> bool:
        asked.append(ask)
        return on_node(hook, address, ask, data)

    monkeypatch.setattr(EvalHook, "_on_node", count)
    context = Context(model, n_ctx=512, n_threads=1, eval_hook=EvalHook(Recorder("never")))
    for token in model.tokenize(TEXT)[:6]:
        asked.clear()
        context.decode([token])
    context.close()
    assert len(asked) < 3 if compiled and _eval_hook._library() else len(asked) > 100


def test_python_is_not_asked_where_all_handlers_are_native(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even at the nodes of a new graph; but at those of the first single token."""
    if not (native := handlers(1)) or attention_for(1) is None:
        pytest.skip("nothing can be compiled here")
    asked: list[bool] = []
    on_node = EvalHook._on_node

    def count(hook: EvalHook, address: int, ask: bool, data: int | None) -> bool:
        asked.append(ask)
        return on_node(hook, address, ask, data)

    monkeypatch.setattr(EvalHook, "_on_node", count)
    context = Context(model, n_ctx=512, n_threads=1, eval_hook=EvalHook(*native))
    tokens = model.tokenize(TEXT)
    counts = []
    for n, n_outputs in ((9, 1), (1, 1), (4, 4), (1, 1), (7, 1), (5, 5)):
        asked.clear()
        context.decode(tokens[:n], n_outputs=n_outputs)
        counts.append(len(asked))
    assert context.may_verify and context.most_verified > 7
    context.close()
    assert counts[1] > 100
    assert not any(counts[:1] + counts[2:])


def test_python_is_asked_at_new_nodes_that_read_weights_if_that_is_enough(model: Model) -> None:
    """What is done there is the same, when all before it is computed, and so are errors."""
    if not (native := handlers(1)) or attention_for(1) is None:
        pytest.skip("nothing can be compiled here")

    class AtWeights(Recorder):
        """Writes down what the products with ``wanted`` read, before each of them."""

        def inspect(self, node: Tensor) -> Actions | None:
            self.inspected.append(node.name)
            operands = [*node.operands()]
            if len(operands) < 2 or self.wanted not in operands[0].name:
                return None
            x = operands[1]

            def before() -> None:
                assert x.data is not None
                self.run.append(str(ctypes.string_at(x.data, 4 * x.ne[0] * x.ne[1])))
                if self.fail:
                    raise OSError("the disk is gone")

            return Actions(before=before)

    everywhere, at_weights = AtWeights("ffn_down"), AtWeights("ffn_down")
    at_weights.only_at_weights = True  # type: ignore[attr-defined]
    results = [
        logits(model, recorder, *native, lengths=LENGTHS) for recorder in (everywhere, at_weights)
    ]
    assert results[0] == results[1] == logits(model, *native, lengths=LENGTHS)
    assert everywhere.run == at_weights.run
    assert len(at_weights.run) == N_BLOCKS * len(LENGTHS)
    assert len(at_weights.inspected) < 0.7 * len(everywhere.inspected)

    at_weights.fail = True
    context = Context(model, n_ctx=512, n_threads=1, eval_hook=EvalHook(at_weights, *native))
    tokens = model.tokenize(TEXT)
    with pytest.raises(OSError, match="the disk is gone"):
        context.decode(tokens)
    at_weights.fail = False
    for token in tokens:
        context.decode([token])
    again = context.logits().tobytes()
    context.close()
    assert [again] == logits(model, *native, lengths=(1,) * len(tokens))[-1:]


def test_a_handler_reads_the_numbers_that_were_computed(model: Model) -> None:
    class Rows:
        tokens: list[list[int]]

        def inspect(self, node: Tensor) -> Actions | None:
            if node.op_name != "GET_ROWS" or self.tokens:
                return None
            _, ids = node.operands()
            return Actions(before=lambda: self.tokens.append(ids.integers()))

    rows = Rows()
    rows.tokens = []
    tokens = model.tokenize(TEXT)
    context = Context(model, n_ctx=512, n_threads=1, eval_hook=EvalHook(rows))
    context.decode(tokens)
    context.close()
    assert rows.tokens[0] == tokens


def test_a_foreign_tensor_layout_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    fields: dict[str, Any] = dict(Tensor._fields_)
    fields["data"] = fields.pop("data")  # moved to the end

    class Moved(ctypes.Structure):
        _fields_ = tuple(fields.items())
        name, op_name, operands = Tensor.name, Tensor.op_name, Tensor.operands

    monkeypatch.setattr(_ggml, "Tensor", Moved)
    with pytest.raises(NativeError, match=r"ggml \d+\.\d+.*llama-cpp-python 0\.3\.36"):
        _ggml._check_layout()
