"""How much RAM this process has taken at most."""

from __future__ import annotations

import sys


def peak_ram() -> int:
    """Bytes; 0 where that is not known."""
    if sys.platform != "linux":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
