"""A thin layer on llama.cpp: model, context, sampling, chat template. ctypes stays in here."""

from ondevice.llama._context import Context, EvalHook, default_threads
from ondevice.llama._log import start
from ondevice.llama._model import LoadCancelled, Model
from ondevice.llama._sampling import Sampler, grammar_of_schema
from ondevice.llama._template import ChatTemplate

__all__ = [
    "ChatTemplate",
    "Context",
    "EvalHook",
    "LoadCancelled",
    "Model",
    "Sampler",
    "default_threads",
    "grammar_of_schema",
    "start",
]
