"""What is written in C is compiled before the first command that needs it."""

from __future__ import annotations

import subprocess
import sys

import click

from ondevice.holding import kernels
from ondevice.system import children


def compile_once() -> None:
    """Compile it, if that was not done on this machine and can be. Ctrl+C stops it.

    Where it fails, its user does without it or says what to do.
    """
    if kernels.may_compile() and (problem := compile_now()):
        click.echo(f"ondevice: {problem}", err=True)


def compile_now() -> str:
    """Compile it, and say so; why that failed, or nothing."""
    if kernels.may_compile():
        click.echo(
            "Compiling ondevice for this processor, once. It takes about 10 seconds, on small "
            "machines a minute …",
            err=True,
        )
    # By a process of its own: what it loads is not needed here afterwards.
    done = subprocess.run(
        [sys.executable, "-m", kernels.__name__],
        stdin=subprocess.DEVNULL,
        env=children.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.strip() if done.returncode else ""
