"""Lets llama.cpp open a model without reading its weights.

llama.cpp maps the whole file, and on Linux has the system read all of it then and there. So it is
given a stand-in: a copy of the header, lengthened with a hole to the size of the real file, which
is all that llama.cpp looks at when it opens a file. Before it maps the stand-in, that is cut off
behind the header: there is nothing to read, and nothing to keep in RAM. Whoever uses such a model
points every tensor at real bytes first; a tensor that was forgotten ends the process at its first
use, rather than computing nonsense.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ondevice.errors import DiskSpaceError
from ondevice.gguf import Part
from ondevice.gguf.writing import HollowHeader
from ondevice.llama import _log

#: What llama.cpp says when all files are open, their sizes checked and none of them mapped yet.
_ALL_OPEN = "loaded meta data with"


@contextmanager
def stand_in(files: Sequence[Part | HollowHeader]) -> Iterator[Path]:
    """A stand-in for these files, to be loaded once within this block."""
    with tempfile.TemporaryDirectory(prefix="ondevice-", ignore_cleanup_errors=True) as folder:
        try:
            headers = [f if isinstance(f, HollowHeader) else HollowHeader.of(f) for f in files]
            copies = [Path(folder, header.name) for header in headers]
            for header, copy in zip(headers, copies, strict=True):
                copy.write_bytes(header.content)
                os.truncate(copy, header.file_bytes)
        except OSError as error:
            raise DiskSpaceError(
                f"The header of the model could not be copied to {folder}: "
                f"{error.strerror}. Free some space there, or set TMPDIR to another "
                "folder."
            ) from error

        def cut_off() -> None:
            for header, copy in zip(headers, copies, strict=True):
                with suppress(OSError):  # then it is mapped with the hole: slower, not wrong
                    os.truncate(copy, len(header.content))

        with _log.watch(_ALL_OPEN, cut_off):
            yield copies[0]
