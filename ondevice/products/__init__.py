"""Products of weights, as they lie in a file, with activations: the same bits in any company."""

from ondevice.products._kernels import ProductHandler, handlers, is_known

__all__ = ["ProductHandler", "handlers", "is_known"]
