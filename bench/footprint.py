"""What ondevice adds to a model: RAM of its processes, time to import, time to the first token.

RAM is the proportional set size of all our processes, at its highest while a reply to a prompt of
over 512 tokens streams, less the weights (pages of the mapped file), the KV cache and the compute
buffers. llama.cpp clears the KV cache, and a full batch touches the buffers, so both are resident
in full. Linux only, with the default model.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import frame
import psutil

from ondevice import models
from ondevice.engine import Engine
from ondevice.messages import Load, Loaded

MODEL = "smollm2-135m"
QUESTION = "Tell me a long story about the sea."
LONG_QUESTION = "The sea was calm and the boat lay at the quay. " * 50 + QUESTION
ONDEVICE = [sys.executable, "-m", "ondevice"]


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    rounds = 3 if quick else 7
    path = models.find(MODEL).path
    with Engine() as engine:
        loaded = engine.load(Load(path=str(path)))
    runs: frame.Runs = []
    for number in range(rounds + 1):
        frame.say(f"round {number} of {rounds}")
        run = {
            "import_ms": import_ms(),
            "first_token_s": first_token_s(),
            "ask_overhead_mb": ask_overhead(loaded) / 1e6,
            "chat_overhead_mb": chat_overhead(loaded) / 1e6,
        }
        if number:  # the first warms the page cache
            runs.append(run)
    return {name: frame.median(r[name] for r in runs) for name in runs[0]}, runs


def import_ms() -> float:
    code = "import time; t = time.perf_counter(); import ondevice; print(time.perf_counter() - t)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(out.stdout) * 1e3


def first_token_s() -> float:
    started = time.perf_counter()
    with asking(QUESTION, "--max-tokens", "1") as process:
        assert process.stdout is not None
        process.stdout.read(1)
        return time.perf_counter() - started


def ask_overhead(loaded: Loaded) -> float:
    with asking(LONG_QUESTION, "--max-tokens", "100") as process:
        watch = Watch(process.pid, loaded)
        assert process.stdout is not None
        process.stdout.read()
        return watch.stop()


def asking(question: str, *options: str) -> subprocess.Popen[bytes]:
    command = [*ONDEVICE, "ask", "--model", MODEL, "--seed", "1", *options, question]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)


def chat_overhead(loaded: Loaded) -> float:
    """The app in a terminal of 100 × 30, a question typed, watched while the reply streams."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [*ONDEVICE, "chat", "--model", MODEL, "--seed", "1"])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    watch = Watch(pid, loaded)
    read(terminal, 60, until=b"ctx 0/")
    os.write(terminal, LONG_QUESTION.encode() + b"\r")
    read(terminal, 15)
    overhead = watch.stop()
    os.write(terminal, b"\x11")  # ctrl+q
    read(terminal, 1)
    psutil.Process(pid).kill()
    os.waitpid(pid, 0)
    os.close(terminal)
    return overhead


def read(terminal: int, seconds: float, until: bytes | None = None) -> None:
    """Take what the app draws for ``seconds``, or until it has drawn ``until``."""
    end = time.monotonic() + seconds
    drawn = b""
    while (left := end - time.monotonic()) > 0 and (until is None or until not in drawn):
        if select.select([terminal], [], [], left)[0]:
            try:
                drawn = drawn[-100:] + os.read(terminal, 65536)
            except OSError:  # the app has ended
                return


class Watch(threading.Thread):
    """Follows the highest RAM of a process and its children beyond the model's own."""

    def __init__(self, pid: int, loaded: Loaded) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._loaded = loaded
        self._highest = 0
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.1):
            try:
                root = psutil.Process(self._pid)
                processes = [root, *root.children(recursive=True)]
                total = sum(set_size(process.pid, self._loaded.path) for process in processes)
            except (psutil.Error, OSError):
                continue  # a process ended meanwhile
            self._highest = max(self._highest, total)

    def stop(self) -> int:
        """Bytes beyond the model's."""
        self._over.set()
        self.join()
        return self._highest - self._loaded.kv_bytes - self._loaded.compute_bytes


def set_size(pid: int, without: str) -> int:
    """Bytes of the proportional set size of process ``pid``, the file ``without`` left out."""
    name, total = "", 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            name = " ".join(line.split()[5:])
        elif line.startswith("Pss:") and name != without:
            total += int(line.split()[1]) * 1024
    return total


if __name__ == "__main__":
    frame.run(__doc__, measure)
