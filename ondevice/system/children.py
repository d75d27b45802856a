"""What the programs that we start may see of our environment."""

from __future__ import annotations

import os

#: The key of the private store and that of servers: nobody but us has use for them, least of all
#: native code that reads files of unknown origin.
_SECRETS = ("ONDEVICE_PASSPHRASE", "ONDEVICE_API_KEY")
#: Of ours, none multiplies matrices with numpy, whose library for that starts a thread for each
#: core all the same when it is loaded, and those spin for a while.
NO_THREADS_OF_NUMPY = {"OPENBLAS_NUM_THREADS": "1"}


def environment(**more: str) -> dict[str, str]:
    """Our environment for a child, without our secrets and with ``more``."""
    ours = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    return NO_THREADS_OF_NUMPY | ours | more
