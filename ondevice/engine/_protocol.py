"""What the app needs of an engine: the seam at which the fake engine of the UI tests stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from ondevice.messages import Event, Generate, Load, Loaded, Measure, Measured, Sizing


class EngineLike(Protocol):
    """A model that can be loaded and asked, one thing at a time.

    ``load`` and ``generate`` block; call them from a worker thread. ``resize``, ``cancel``,
    ``answer_now`` and ``close`` may be called from any other thread meanwhile. Errors are those of
    :mod:`ondevice.errors`; what cannot be asked is a :class:`UsageError` that names the field.
    """

    @property
    def loaded(self) -> Loaded | None:
        """The model that is ready, or None."""

    @property
    def sizing(self) -> Sizing | None:
        """How RAM is used now; None for a model that is not here."""

    @property
    def pid(self) -> int | None:
        """The engine's process, or None while there is none."""

    def load(self, request: Load, on_progress: Callable[[float], None] | None = None) -> Loaded:
        """Load a model; ``on_progress`` gets fractions 0 … 1."""

    def generate(self, request: Generate) -> Iterator[Event]:
        """The reply as a stream of events that ends with ``Finished``.

        However the iteration is left, the reply is cancelled and the next one is its own.

        Raises :class:`EngineDied` when the process ended by itself; the next call starts it again
        with the same model, unless it died of that model: then it says so.
        """

    def measure(self, request: Measure) -> Measured:
        """Count tokens; the context is made larger if it must and can be.

        Blocks as ``generate`` does, but not for long. A server tells no figures: all are 0.
        """

    def resize(self, budget: int | None) -> None:
        """Give the weights that many bytes of RAM; None: what there is room for.

        ``sizing`` tells when it is done, which takes a moment.
        """

    def cancel(self) -> None:
        """End the load or reply under way; the stream then ends with reason "cancelled".

        What does not obey within two seconds is ended, and starts again with the next call.
        """

    def answer_now(self) -> None:
        """End the thinking of the reply under way, or that it is about to begin.

        A model that does not think takes no notice, and neither does one on a server.
        """

    def close(self) -> None:
        """End the process, for good."""
