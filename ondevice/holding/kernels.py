"""All that is written in C, compiled at once: it takes long on a small machine."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from ondevice import paths
from ondevice.errors import NativeError
from ondevice.ram import available
from ondevice.system import compiled

#: Whose C says what computing comes to, to the last bit.
PACKAGES = ("ondevice.llama", "ondevice.products", "ondevice.holding.stack")
_COMPILER = 300 << 20  # bytes of RAM that a compiler takes at most
_TOGETHER = 2
_HOME = "ondevice"  # the package for which is kept that all of it has been compiled


def are_compiled() -> bool:
    """Whether this was done here, and kept."""
    return compiled.kept(_HOME, _mark()) is not None


def may_compile() -> bool:
    """Whether it was not, and can be."""
    if are_compiled():
        return False
    return compiled.find_compiler() is not None and compiled.place_to_keep(_HOME) is not None


def compile_all() -> None:
    """Compile and keep it.

    Raises :class:`NativeError` if some of it cannot be compiled here, or not kept.
    """
    # Only now, since it brings llama.cpp along.
    from ondevice import llama, products  # noqa: PLC0415
    from ondevice.holding.stack import _encoding, _planes  # noqa: PLC0415

    sources = (products.SOURCE, _planes.SOURCE, *llama.SOURCES, _encoding.SOURCE)
    fit = available.look().usable // _COMPILER
    with ThreadPoolExecutor(max(1, min(_TOGETHER, fit))) as pool:
        list(pool.map(compiled.library, sources))
    place = compiled.place_to_keep(_HOME)
    try:
        if place is not None and all(map(compiled.is_kept, sources)):
            (place / _mark()).touch()
            return
    except OSError:  # no room even for that
        pass
    raise NativeError(
        f"What was compiled could not be kept in {place or paths.cache_dir()}, so each start "
        "compiles it again. Free some space there, or set ONDEVICE_HOME to a folder of your own "
        "with some space."
    )


def _mark() -> str:
    return compiled.for_this_machine("compiled", compiled.digest(*PACKAGES).encode())


if __name__ == "__main__":
    try:
        compile_all()
    except NativeError as error:
        sys.exit(str(error))
