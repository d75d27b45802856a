"""A model in F16: so large beside its KV cache that a little less RAM has it streamed."""

from __future__ import annotations

from pathlib import Path

import llama_cpp


def write(source: Path, target: Path) -> Path:
    """Write the model ``source`` to ``target``, each weight in 16 bits."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = llama_cpp.LLAMA_FTYPE_MOSTLY_F16, True
    assert llama_cpp.llama_model_quantize(bytes(source), bytes(target), params) == 0
    return target
