"""A thin layer on llama.cpp: model, context, sampling, chat template. ctypes stays in here."""

from ondevice.llama._constraint import Constraint, Grammar, SchemaVocabulary
from ondevice.llama._context import Context, Interrupted, interrupt
from ondevice.llama._eval_hook import Actions, EvalHook, NodeHandler
from ondevice.llama._ggml import OP_CUSTOM, OP_MUL_MAT, OP_NONE, Tensor
from ondevice.llama._hollow import HollowHeader
from ondevice.llama._log import start
from ondevice.llama._model import Model
from ondevice.llama._planes import FIRST_PLANE, PLANES, Planes, checksum, encode, scratch
from ondevice.llama._planes import Shape as PlanesShape
from ondevice.llama._product import MOST_COLUMNS, multiply_rows
from ondevice.llama._quants import dequantize
from ondevice.llama._sampling import Sampler
from ondevice.llama._template import ChatTemplate, Stopped
from ondevice.llama._waiting import Waiting, should_sleep

__all__ = [
    "FIRST_PLANE",
    "MOST_COLUMNS",
    "OP_CUSTOM",
    "OP_MUL_MAT",
    "OP_NONE",
    "PLANES",
    "Actions",
    "ChatTemplate",
    "Constraint",
    "Context",
    "EvalHook",
    "Grammar",
    "HollowHeader",
    "Interrupted",
    "Model",
    "NodeHandler",
    "Planes",
    "PlanesShape",
    "Sampler",
    "SchemaVocabulary",
    "Stopped",
    "Tensor",
    "Waiting",
    "checksum",
    "dequantize",
    "encode",
    "interrupt",
    "multiply_rows",
    "scratch",
    "should_sleep",
    "start",
]
