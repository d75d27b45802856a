"""What a crash may leave behind."""

from __future__ import annotations

import sys
from contextlib import suppress


def leave_no_core() -> None:
    """No crash of this process may write its memory, with what was said in it, to the disk."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - only there where there are core dumps

    # Linux gives a core to a program whatever the limit, unless it is 1 (see core(5) and
    # fs/coredump.c), which is also too little for a file.
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    least = min(1, hard) if hard != resource.RLIM_INFINITY else 1
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (least, least))
