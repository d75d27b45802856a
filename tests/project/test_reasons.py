"""What an error of the system says to a user: neither its number nor its path a second time."""

from __future__ import annotations

import ast
import errno
import os
import subprocess

import pytest
from source_tree import ROOT

from ondevice.text import reason

_OF_THE_SYSTEM = {"OSError", "FileNotFoundError", "PermissionError", "subprocess.SubprocessError"}
#: Beside "error.strerror or", where the layers allow nothing else.
_FALLBACK = "error.strerror or str(error)"


def test_a_reason_is_words() -> None:
    with pytest.raises(FileNotFoundError) as missing:
        (ROOT / "not there").read_bytes()
    assert reason(missing.value) == "No such file or directory"
    full = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    assert reason(full) == "Too many open files (allow more with 'ulimit -n 1024')"
    failed = subprocess.CalledProcessError(-9, ["a", "long", "command"])
    assert reason(failed) == "the process ended unexpectedly (-9)"
    assert reason(ValueError("it is odd")) == "it is odd"
    assert len(reason(ValueError("it is odd: " + "x" * 100_000))) < 1000
    assert reason(ValueError("[Errno 111] Connection refused")) == "Connection refused"


def test_no_message_quotes_an_error_of_the_system_as_python_writes_it() -> None:
    quoted = []
    for file in [*ROOT.glob("ondevice/**/*.py"), *ROOT.glob("tui/**/*.py")]:
        for handler in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(handler, ast.ExceptHandler) or not handler.name or not handler.type:
                continue
            kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
            if not _OF_THE_SYSTEM & {ast.unparse(kind) for kind in kinds}:
                continue
            text = "\n".join(map(ast.unparse, handler.body)).replace(_FALLBACK, "")
            if f"{{{handler.name}}}" in text or f"str({handler.name})" in text:
                quoted.append(f"{file.relative_to(ROOT).as_posix()}:{handler.lineno}")
    assert quoted == []
