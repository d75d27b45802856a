"""A process of its own that turns the PDF on its standard input into text on its standard output.

A small PDF can ask for a lot of time and RAM. It is run as a file, and imports nothing of ours.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from io import BytesIO

MOST_MEMORY = 1 << 30  # bytes of address space, where the system can limit that
MOST_SECONDS = 60
MOST_TEXT = 20_000_000  # characters

DAMAGED, TOO_MUCH = 3, 4  # exit codes


def main() -> int:
    with suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415 - Windows has none

        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        from pypdf import PdfReader  # noqa: PLC0415 - within the limits

        logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it prints what it then raises
        length = 0
        pages = []
        for page in PdfReader(BytesIO(sys.stdin.buffer.read())).pages:
            pages.append(page.extract_text())
            length += len(pages[-1])
            if length > MOST_TEXT:
                return TOO_MUCH
        sys.stdout.buffer.write("\n\n".join(pages).encode("utf-8", "replace"))
    except MemoryError:
        return TOO_MUCH
    except Exception as error:  # of damaged files pypdf raises whatever its parts do
        sys.stdout.buffer.write(str(error)[:200].encode("utf-8", "replace"))
        return DAMAGED
    return 0


if __name__ == "__main__":
    sys.exit(main())
