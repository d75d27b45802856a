"""Running a command with less RAM than the machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ondevice.errors import UsageError
from ondevice.ram import limit
from ondevice.ram.limit import limited

ALLOCATE = "import sys; data = b'x' * int(sys.argv[1]); print(len(data))"


def allocate(n_bytes: int, limit_bytes: int) -> subprocess.CompletedProcess[str]:
    """Run a process that needs that much RAM, or skip where RAM cannot be limited."""
    command = [sys.executable, "-c", ALLOCATE, str(n_bytes)]
    try:
        with limited(["true"], limit_bytes) as line:
            subprocess.run(line, check=True, capture_output=True)
    except (UsageError, OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"RAM cannot be limited here: {error}")
    with limited(command, limit_bytes) as line:
        return subprocess.run(line, check=False, capture_output=True, text=True)


def test_a_process_within_the_limit_runs_and_one_beyond_it_is_ended() -> None:
    within = allocate(20_000_000, 200_000_000)
    assert (within.returncode, within.stdout) == (0, "20000000\n")
    assert allocate(400_000_000, 200_000_000).returncode != 0


def test_no_group_is_left_behind() -> None:
    allocate(1_000_000, 100_000_000)
    assert not list(Path("/sys/fs/cgroup").glob(f"**/ondevice-{os.getpid()}"))


def test_the_command_line_gives_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    allocate(1_000_000, 100_000_000)
    failing = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr(sys, "argv", ["limit", "100M", *failing])
    assert limit.main() == 3
    monkeypatch.setattr(sys, "argv", ["limit", "100M"])
    assert limit.main() == 2
    monkeypatch.setattr(sys, "argv", ["limit", "much", "true"])
    assert limit.main() == UsageError.exit_code
    assert "much" in capsys.readouterr().err
