"""Whether a GGUF file is a model that can be run, and whose fault it is when it cannot."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ondevice.errors import ModelFileError, OndeviceError
from ondevice.gguf import _file as gguf
from ondevice.gguf._file import GGUFFile

# Far above any model: the most are 30 tensors in a block, and 9 outside of blocks.
_TENSORS_OF_A_BLOCK, _OTHER_TENSORS = 64, 8192


@contextmanager
def blamed(path: Path) -> Iterator[None]:
    """Whatever goes wrong in here is the fault of the file at ``path``: ModelFileError says so.

    For what is worked out from one file of many, that anybody may have put there: none of them
    may end what is done with the others.
    """
    try:
        yield
    except OndeviceError:
        raise
    except Exception as error:
        raise ModelFileError(
            f"{path} cannot be used: its values make no sense ({type(error).__name__}: "
            f"{error}). Download it again, or remove it."
        ) from error


def read(path: Path) -> GGUFFile:
    """The model in the file at ``path``, if it is one that can be run.

    Raises :class:`ModelFileError` as :func:`ondevice.gguf._file.read`, and for what is sound and
    no language model: the eyes of one, an adapter, statistics of one.
    """
    with blamed(path):
        file = gguf.read(path)
        check(file)
        return file


def check(file: GGUFFile) -> None:
    """Raises :class:`ModelFileError` if the file describes no model that can be run."""
    architecture, n_tensors = file.architecture, len(file.tensors)
    if not file.n_blocks or "token_embd.weight" not in file.tensors:
        raise ModelFileError(
            f"{file.path} is not a language model: it has no "
            f"{('tokens' if file.n_blocks else 'blocks')} to compute with. It may be part "
            "of one. Choose the file of the model itself."
        )
    if n_tensors > _OTHER_TENSORS + _TENSORS_OF_A_BLOCK * file.n_blocks and not file.is_stack:
        raise ModelFileError(
            f"{file.path} is not a language model: it has {n_tensors} tensors in "
            f"{file.n_blocks} blocks. Download it again, or remove it."
        )
    in_matrices = sum(math.prod(t.shape) for t in file.tensors.values() if len(t.shape) > 1)
    if in_matrices * 2 < file.n_params:
        raise ModelFileError(
            f"{file.path} is not a language model: most of its values are in no matrix. "
            "Download it again, or remove it."
        )
    if not is_known(architecture):
        raise ModelFileError(
            f"{file.path} has the unknown architecture {architecture[:40]!r}. The file "
            "may be damaged, or need a newer ondevice."
        )


def is_known(architecture: str) -> bool:
    """Whether the llama.cpp that is installed has heard of this architecture.

    Asking it would load native code. Its library holds all names, each with a zero at its end; one
    that is not in there is not known. (One that is in there by chance llama.cpp refuses itself.)
    """
    name = architecture.encode()
    if not name or b"\0" in name:
        return False
    return _is_in_library(name)


@cache
def _is_in_library(name: bytes) -> bool:
    spec = find_spec("llama_cpp")
    folders = spec.submodule_search_locations if spec else None
    libraries = [
        path
        for folder in folders or ()
        for path in sorted(Path(folder, "lib").glob("*llama.*"))
        if path.suffix in (".so", ".dylib", ".dll")
    ]
    for library in libraries:
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as it:
            if it.find(name + b"\0") >= 0:
                return True
    return not libraries
