"""Products of weights, as they lie in a file, with activations: the same bits in any company."""

from ondevice.products._kernels import (
    SOURCE,
    TILE_FLAGS,
    TILE_HEADERS,
    ProductHandler,
    handlers,
    is_known,
    new_products,
    with_tiles,
)

__all__ = [
    "SOURCE",
    "TILE_FLAGS",
    "TILE_HEADERS",
    "ProductHandler",
    "handlers",
    "is_known",
    "new_products",
    "with_tiles",
]
