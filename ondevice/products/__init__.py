"""Products of weights, as they lie in a file, with activations: the same bits in any company."""

from ondevice.products._kernels import (
    TILE_FLAGS,
    TILE_HEADERS,
    ProductHandler,
    handlers,
    is_known,
    new_products,
    with_tiles,
)

__all__ = [
    "TILE_FLAGS",
    "TILE_HEADERS",
    "ProductHandler",
    "handlers",
    "is_known",
    "new_products",
    "with_tiles",
]
