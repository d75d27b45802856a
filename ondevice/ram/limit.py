"""Runs a command with less RAM than there is, to see how it does on a smaller machine.

``python -m ondevice.ram.limit 600M ondevice ask "…"``. The limit counts the page cache too, as a
small machine would. It takes a control group: with root a new one is made, otherwise systemd is
asked for one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ondevice.errors import OndeviceError, UsageError
from ondevice.ram.available import parse_size

_GROUPS = Path("/sys/fs/cgroup")


@contextmanager
def limited(command: Sequence[str], limit_bytes: int) -> Iterator[list[str]]:
    """The command line that runs ``command`` with ``limit_bytes`` of RAM, within this block.

    Raises :class:`UsageError` where the system offers no way.
    """
    v1 = (_GROUPS / "memory").is_dir()
    parent = _GROUPS / "memory" if v1 else _GROUPS
    group = parent / f"ondevice-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        if shutil.which("systemd-run") is None:
            raise UsageError(
                "RAM can be limited as root on Linux, or where systemd-run is installed."
            ) from error
        scope = ["systemd-run", "--user", "--scope", "--quiet"]
        limits = ["-p", f"MemoryMax={limit_bytes}", "-p", "MemorySwapMax=0"]
        yield [*scope, *limits, "--", *command]
        return
    try:
        name = "memory.limit_in_bytes" if v1 else "memory.max"
        (group / name).write_text(str(limit_bytes))
        if (swap := group / "memory.swap.max").exists():
            swap.write_text("0")
        join = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
        yield ["sh", "-c", join, str(group), *command]
    finally:
        group.rmdir()


def main() -> int:
    """The command's exit code."""
    if len(sys.argv) < 3:
        print("usage: python -m ondevice.ram.limit SIZE COMMAND…", file=sys.stderr)  # noqa: T201
        return 2
    try:
        with limited(sys.argv[2:], parse_size(sys.argv[1])) as command:
            return subprocess.run(command, check=False).returncode
    except OndeviceError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
