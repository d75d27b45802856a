"""Products of weights, as they lie in a file, with activations: the same bits in any company."""

from ondevice.products._handler import ProductHandler, handlers
from ondevice.products._kernels import Kernels, block

__all__ = ["Kernels", "ProductHandler", "block", "handlers"]
