"""A thin layer on llama.cpp: model, context, sampling, chat template. ctypes stays in here."""

from ondevice.llama import _attention, _eval_hook
from ondevice.llama._constraint import Constraint, Grammar, SchemaVocabulary
from ondevice.llama._context import Context, Interrupted, interrupt
from ondevice.llama._eval_hook import (
    Actions,
    EvalHook,
    NativeHandler,
    NodeHandler,
    idle_handler,
)
from ondevice.llama._ggml import (
    OP_CUSTOM,
    OP_MUL_MAT,
    OP_MUL_MAT_ID,
    OP_NONE,
    TENSOR_HEADER,
    Tensor,
    tell_layout,
)
from ondevice.llama._log import start
from ondevice.llama._model import Model
from ondevice.llama._next_states import has_next_states
from ondevice.llama._prediction import Predictor
from ondevice.llama._product import MOST_COLUMNS, multiply_rows
from ondevice.llama._quants import dequantize
from ondevice.llama._sampling import Sampler
from ondevice.llama._template import ChatTemplate, Stopped
from ondevice.llama._waiting import Waiting

__all__ = [
    "MOST_COLUMNS",
    "OP_CUSTOM",
    "OP_MUL_MAT",
    "OP_MUL_MAT_ID",
    "OP_NONE",
    "SOURCES",
    "TENSOR_HEADER",
    "Actions",
    "ChatTemplate",
    "Constraint",
    "Context",
    "EvalHook",
    "Grammar",
    "Interrupted",
    "Model",
    "NativeHandler",
    "NodeHandler",
    "Predictor",
    "Sampler",
    "SchemaVocabulary",
    "Stopped",
    "Tensor",
    "Waiting",
    "dequantize",
    "has_next_states",
    "idle_handler",
    "interrupt",
    "multiply_rows",
    "start",
    "tell_layout",
]

#: What is written in C here.
SOURCES = (_attention.SOURCE, _eval_hook.SOURCE)
