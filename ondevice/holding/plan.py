"""A plan: one way of running one model here, and what to expect of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ondevice.gguf import GGUFFile
from ondevice.gguf.quality import effective_params
from ondevice.holding.costs import decode_seconds, prefill_seconds
from ondevice.holding.speeds import Speeds
from ondevice.holding.way import Way
from ondevice.messages import KVType, Preference
from ondevice.ram.need import Need

READING = 5.0  # tokens a second at which people read; with fewer, they wait
_ENOUGH = 30.0  # tokens a second; more is worth nothing to a reader
_LAST = 1000.0  # by which a plan is worth less that is only taken when there is no other

#: What of a reply's quality is left with each type of KV cache.
KV_QUALITY: dict[KVType, float] = {"f16": 1.0, "q8_0": 0.997, "q4_0": 0.96}


class Taste(NamedTuple):
    """How much twice as much of something is worth; 1: twice as good."""

    speed: float
    context: float  # tokens
    quality: float  # of what quantizing has left of it
    size: float  # parameters


TASTES: dict[Preference, Taste] = {
    # Anything that is faster, unless it falls apart: half of the quality is worth four doublings.
    "speed": Taste(speed=2, context=0.5, quality=4, size=1),
    # A twentieth of the quality is worth four doublings of speed: 4-bit caches come last.
    "balanced": Taste(speed=1, context=0.5, quality=60, size=2),
    # No loss is made up for by any speed.
    "exact": Taste(speed=0.5, context=0.5, quality=1000, size=3),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """One way of running one model."""

    file: GGUFFile
    way: Way = field(compare=False)  # which holds it
    kv_type: KVType
    need: Need  # of the model with all its weights in RAM
    weights_budget: int  # bytes of RAM that weights may take
    resident_bytes: int  # weights in RAM, buffers for the streamed ones included
    streamed_bytes: int  # weights that are not in RAM, but read from the disk when needed
    drafter: Plan | None  # how the model is run that drafts
    drafter_bytes: int  # RAM that it takes
    tokens_per_second: float  # expected
    first_token_s: float  # expected after a prompt of 512 tokens
    quality: float  # of 1: what is left of the unquantized model's
    left_out_bytes: int = 0  # weights that it does without
    idle_drafter: GGUFFile | None = None  # was asked for, and is not used
    predicts: bool = False  # the model's own prediction block drafts
    is_last_resort: bool = False  # unless exactness is all that counts

    @classmethod
    def in_ram(
        cls, way: Way, file: GGUFFile, kv_type: KVType, wanted: Need, speeds: Speeds
    ) -> Plan:
        """All weights are in RAM, as they are in the file."""
        return cls(
            file=file,
            way=way,
            kv_type=kv_type,
            need=wanted,
            weights_budget=wanted.weights,
            resident_bytes=wanted.weights,
            streamed_bytes=0,
            drafter=None,
            drafter_bytes=0,
            tokens_per_second=1 / decode_seconds(file, speeds),
            first_token_s=prefill_seconds(file, speeds),
            quality=file.quality * KV_QUALITY[kv_type],
        )

    @property
    def kind(self) -> Literal["resident", "window", "stack"]:
        """The way as users know it: to them, a window that holds everything is none."""
        if self.way.name == "stack":
            return "stack"
        return "window" if self.streamed_bytes else "resident"

    @property
    def n_ctx(self) -> int:
        return self.need.n_ctx

    @property
    def peak_bytes(self) -> int:
        """RAM that the engine is expected to take at most."""
        return self.need.total - self.need.weights + self.resident_bytes + self.drafter_bytes

    @property
    def effective_params(self) -> float:
        """Parameters of a dense, unquantized model that is about as good."""
        return effective_params(self.file.n_params, self.file.n_active_params, self.quality)

    def worth(self, preference: Preference) -> float:
        """By which plans are compared; one more is twice as good.

        A disk that is read all the time counts like half the speed, and what is slower than one
        reads counts twice. What leaves weights out has the speed of all of them, so that less of a
        model is never worth more.
        """
        per_second = self.tokens_per_second
        if self.is_last_resort and preference != "exact":
            return math.log2(per_second) - _LAST
        per_second *= 1 - self.left_out_bytes / self.need.weights
        waiting = math.log2(max(1.0, READING / per_second))
        speed = math.log2(min(per_second, _ENOUGH)) - waiting - (self.streamed_bytes > 0)
        quality = math.log2(self.quality)
        taste = TASTES[preference]
        return (
            taste.speed * speed
            + taste.context * math.log2(self.n_ctx)
            + taste.quality * quality
            + taste.size * (math.log2(self.effective_params) - quality)
        )
