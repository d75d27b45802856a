"""Chooses the next token: llama.cpp's sampler chain, with an optional constraint."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import llama_cpp
import numpy as np
import numpy.typing as npt

from ondevice.llama._constraint import CANDIDATE, Constraint, candidate_array
from ondevice.llama._context import Context
from ondevice.llama._model import Model
from ondevice.messages import Sampling


class Sampler:
    """A chain of repetition penalty, top-k, top-p, min-p, temperature and a seeded draw.

    ``constraint`` restricts the tokens that may come next. It is closed with the sampler.
    """

    def __init__(
        self,
        model: Model,
        sampling: Sampling,
        seed: int,
        constraint: Constraint | None = None,
    ) -> None:
        self._constraint = constraint
        self._after: int | None = None
        self._chain = llama_cpp.llama_sampler_chain_init(
            llama_cpp.llama_sampler_chain_default_params()
        )
        self._candidates = np.zeros(model.n_vocab, CANDIDATE)
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

    def constrain_after(self, token: int) -> None:
        """Have the constraint begin only after ``token``, such as the end of the thinking."""
        self._after = token

    @property
    def is_constrained(self) -> bool:
        """Whether the constraint has begun."""
        return self._constraint is not None and self._after is None

    def accept(self, tokens: Sequence[int]) -> None:
        """Take note of tokens that were not drawn here: unless it :attr:`is_constrained`.

        What the constraint waits for may be among them; it then begins after all of them.
        """
        if self._after in tokens:
            self._after = None
        for token in tokens:
            llama_cpp.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        """Free the native samplers."""
        if self._chain:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None
        if self._constraint is not None:
            self._constraint.close()

    def sample(self, context: Context) -> int:
        """The token that follows the last one decoded in ``context``."""
        if self._constraint is None:
            return int(llama_cpp.llama_sampler_sample(self._chain, context.handle, -1))
        return self.sample_from(context.logits())

    def sample_from(self, logits: npt.NDArray[np.float32]) -> int:
        """The token drawn from ``logits``, shape (n_vocab,).

        Raises :class:`UsageError` when a constraint gets too complicated.
        """
        token = self._apply(logits)
        if self._after is not None:
            if token == self._after:
                self._after = None
        elif self._constraint is not None:
            # To look at the whole vocabulary is slow, and most drawn tokens are allowed anyway.
            if not self._constraint.allows(token):
                token = self._apply(np.where(self._constraint.allowed(), logits, -np.inf))
            self._constraint.accept(token)
        llama_cpp.llama_sampler_accept(self._chain, token)
        return token

    def _apply(self, logits: npt.NDArray[np.float32]) -> int:
        candidates = self._candidates
        candidates["id"] = np.arange(len(logits), dtype=np.int32)
        candidates["logit"] = logits
        candidates["p"] = 0
        array = candidate_array(candidates)
        llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)
