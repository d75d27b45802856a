"""Chooses the next token: llama.cpp's sampler chain, with an optional grammar."""

from __future__ import annotations

import ctypes

import llama_cpp
import numpy as np
import numpy.typing as npt

from ondevice.engine.messages import Sampling
from ondevice.errors import UsageError
from ondevice.llama._context import Context
from ondevice.llama._model import Model

#: ``llama_token_data``: id, logit, probability.
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Sampler:
    """A chain of repetition penalty, top-k, top-p, min-p, temperature and a seeded draw.

    ``grammar`` (GBNF with a rule ``root``) restricts the tokens that may come next.

    Raises :class:`UsageError` for a grammar that cannot be parsed.
    """

    def __init__(self, model: Model, sampling: Sampling, seed: int, grammar: str | None) -> None:
        self._grammar = None
        if grammar is not None:
            self._grammar = llama_cpp.llama_sampler_init_grammar(
                model.vocab_handle, grammar.encode(), b"root"
            )
            if not self._grammar:
                raise UsageError(
                    "The grammar cannot be parsed. It must be GBNF with a rule named 'root'."
                )
        self._chain = llama_cpp.llama_sampler_chain_init(
            llama_cpp.llama_sampler_chain_default_params()
        )
        self._candidates = np.zeros(model.n_vocab, _CANDIDATE)
        never = model.suppressed_tokens
        biases = (llama_cpp.llama_logit_bias * len(never))()
        for bias, token in zip(biases, never, strict=True):
            bias.token, bias.bias = token, -np.inf
        steps = [
            llama_cpp.llama_sampler_init_logit_bias(model.n_vocab, len(never), biases)
            if never
            else None,
            llama_cpp.llama_sampler_init_penalties(
                model.n_vocab, sampling.repeat_last_n, sampling.repeat_penalty, 0.0, 0.0
            )
            if sampling.repeat_penalty != 1.0
            else None,
        ]
        if sampling.temperature <= 0:
            steps.append(llama_cpp.llama_sampler_init_greedy())
        else:
            steps += [
                llama_cpp.llama_sampler_init_top_k(sampling.top_k),
                llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1),
                llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1),
                llama_cpp.llama_sampler_init_temp(sampling.temperature),
                llama_cpp.llama_sampler_init_dist(seed),
            ]
        for step in filter(None, steps):
            llama_cpp.llama_sampler_chain_add(self._chain, step)

    def close(self) -> None:
        """Free the native samplers."""
        for sampler in filter(None, (self._chain, self._grammar)):
            llama_cpp.llama_sampler_free(sampler)
        self._chain = self._grammar = None

    def sample(self, context: Context) -> int:
        """The token that follows the last one decoded in ``context``."""
        if self._grammar is None:
            return int(llama_cpp.llama_sampler_sample(self._chain, context.handle, -1))
        return self.sample_from(context.logits())

    def sample_from(self, logits: npt.NDArray[np.float32]) -> int:
        """The token drawn from ``logits``, shape (n_vocab,)."""
        token = self._apply(logits, self._chain)
        if self._grammar is not None:
            # A grammar over the whole vocabulary is slow, and most drawn tokens satisfy it anyway.
            if not self._allowed(token):
                token = self._apply(logits, self._grammar, self._chain)
            llama_cpp.llama_sampler_accept(self._grammar, token)
        llama_cpp.llama_sampler_accept(self._chain, token)
        return token

    def _apply(self, logits: npt.NDArray[np.float32], *samplers: object) -> int:
        candidates = self._candidates
        candidates["id"] = np.arange(len(logits), dtype=np.int32)
        candidates["logit"] = logits
        candidates["p"] = 0
        array = _array(candidates)
        for sampler in samplers:
            llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def _allowed(self, token: int) -> bool:
        candidate = np.array([(token, 0.0, 0.0)], _CANDIDATE)
        array = _array(candidate)
        llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(array))
        return bool(np.isfinite(candidate["logit"][0]))


def _array(candidates: npt.NDArray[np.void]) -> llama_cpp.llama_token_data_array:
    return llama_cpp.llama_token_data_array(
        data=candidates.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data)),
        size=len(candidates),
        selected=-1,
        sorted=False,
    )


def grammar_of_schema(schema: str) -> str:
    """The GBNF grammar of a JSON schema given as JSON text. Raises :class:`UsageError`."""
    from llama_cpp.llama_grammar import json_schema_to_gbnf  # noqa: PLC0415 - only when asked for

    try:
        grammar: str = json_schema_to_gbnf(schema)
    except Exception as error:
        raise UsageError(f"The JSON schema cannot be used: {error}") from error
    return grammar
