"""A thin layer on llama.cpp: model, context, sampling, chat template. ctypes stays in here."""

from ondevice.llama._context import Context, default_threads
from ondevice.llama._eval_hook import Actions, EvalHook, NodeHandler
from ondevice.llama._ggml import OP_CUSTOM, OP_MUL_MAT, OP_NONE, Tensor
from ondevice.llama._hollow import HollowHeader
from ondevice.llama._log import start
from ondevice.llama._model import Model
from ondevice.llama._planes import FIRST_PLANE, PLANES, Planes, checksum, encode, scratch
from ondevice.llama._planes import Shape as PlanesShape
from ondevice.llama._product import multiply_rows
from ondevice.llama._quants import dequantize
from ondevice.llama._sampling import Sampler, grammar_of_schema
from ondevice.llama._template import ChatTemplate, Stopped

__all__ = [
    "FIRST_PLANE",
    "OP_CUSTOM",
    "OP_MUL_MAT",
    "OP_NONE",
    "PLANES",
    "Actions",
    "ChatTemplate",
    "Context",
    "EvalHook",
    "HollowHeader",
    "Model",
    "NodeHandler",
    "Planes",
    "PlanesShape",
    "Sampler",
    "Stopped",
    "Tensor",
    "checksum",
    "default_threads",
    "dequantize",
    "encode",
    "grammar_of_schema",
    "multiply_rows",
    "scratch",
    "start",
]
