"""The direct reader: the right bytes, and an error of ours for every way a disk can fail."""

from __future__ import annotations

import errno
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ondevice.disk.reader import PAGE, PIECE_BYTES, Arena, Reader, Span
from ondevice.errors import ModelFileError

SIZE = 9 * (1 << 20) + 1234


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.gguf"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


def read(reader: Reader, offset: int, n_bytes: int, n_pieces: int = 1) -> bytes:
    span = Span.around(0, offset, n_bytes)
    arena = Arena(span.n_bytes)
    reader.start(span, arena.view, n_pieces).wait()
    return bytes(arena.view[offset - span.offset :][:n_bytes])


RANGES = [(0, 0), (0, 1), (4095, 2), (0, SIZE), (SIZE - 1, 1), (PIECE_BYTES - 5, PIECE_BYTES + 10)]


@pytest.mark.parametrize("n_pieces", [1, 3, 7])
@pytest.mark.parametrize(("offset", "n_bytes"), RANGES)
def test_any_range_is_read(file: Path, offset: int, n_bytes: int, n_pieces: int) -> None:
    reader = Reader([file])
    expected = file.read_bytes()[offset : offset + n_bytes]
    assert read(reader, offset, n_bytes, n_pieces) == expected
    reader.close()


def refuse_direct_open(monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open

    def without_direct(path: Path, flags: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no direct reads here")
        return real_open(path, flags)

    monkeypatch.setattr(os, "open", without_direct)


def no_preadv(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_direct_open(monkeypatch)
    monkeypatch.delattr(os, "preadv")


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="the system has no O_DIRECT")
@pytest.mark.parametrize("lack", [refuse_direct_open, no_preadv])
def test_a_system_without_direct_reads_gives_the_same_bytes(
    file: Path, monkeypatch: pytest.MonkeyPatch, lack: Callable[[pytest.MonkeyPatch], None]
) -> None:
    lack(monkeypatch)
    reader = Reader([file])
    for offset, n_bytes in RANGES:
        assert read(reader, offset, n_bytes) == file.read_bytes()[offset : offset + n_bytes]
    reader.close()


def test_reads_that_come_back_short_are_continued(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.preadv
    reader = Reader([file])
    monkeypatch.setattr(
        os, "preadv", lambda fd, buffers, at: real(fd, [buffers[0][: 3 * PAGE]], at)
    )
    assert read(reader, 100, 200_000) == file.read_bytes()[100:200_100]
    reader.close()


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="the system has no O_DIRECT")
@pytest.mark.parametrize("unit", [512, PAGE])
def test_direct_reads_begin_at_what_the_disk_takes(
    file: Path, monkeypatch: pytest.MonkeyPatch, unit: int
) -> None:
    real, refused = os.preadv, []

    def in_units(fd: int, buffers: list[memoryview], offset: int) -> int:
        if offset % unit or len(buffers[0]) % unit:
            refused.append(offset)
            raise OSError(errno.EINVAL, "not a multiple of a sector")
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", in_units)
    reader = Reader([file])
    if not reader.direct:
        pytest.skip("the file system of the temporary folder has no direct reads")
    tried = len(refused)
    assert reader.unit == unit
    for offset, n_bytes in RANGES:
        span = Span.around(0, offset, n_bytes, reader.unit)
        buffer = Arena(span.n_bytes).view
        reader.start(span, buffer).wait()
        got = bytes(buffer[offset - span.offset :][:n_bytes])
        assert got == file.read_bytes()[offset : offset + n_bytes]
    assert len(refused) == tried
    reader.close()


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="the system has no O_DIRECT")
@pytest.mark.parametrize("least", [1000, 3 * PAGE + 1000])
def test_direct_reads_that_end_within_a_page_are_continued(
    file: Path, monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    """As over a network: the system takes no direct read that begins there."""
    real = os.preadv
    reader = Reader([file])
    if not reader.direct:
        pytest.skip("the file system of the temporary folder has no direct reads")
    monkeypatch.setattr(os, "preadv", lambda *read: min(least, real(*read)))
    for offset, n_bytes in ((0, 200_000), (SIZE - 50_000, 50_000)):
        assert read(reader, offset, n_bytes) == file.read_bytes()[offset : offset + n_bytes]
    reader.close()


def shorten(path: Path) -> None:
    os.truncate(path, SIZE // 2)


def lengthen(path: Path) -> None:
    os.truncate(path, SIZE + 1)


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other")


def rewrite_unseen(path: Path) -> None:
    before = path.stat()
    rewrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


_on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps no such time")


@pytest.mark.parametrize(
    "change", [shorten, lengthen, rewrite, pytest.param(rewrite_unseen, marks=_on_posix)]
)
def test_a_file_that_changes_is_an_error(file: Path, change: Callable[[Path], None]) -> None:
    reader = Reader([file])
    change(file)
    with pytest.raises(ModelFileError, match=r"weights\.gguf changed while.*Load the model again"):
        read(reader, SIZE - 100, 100)
    with pytest.raises(ModelFileError, match="changed while"):
        reader.check()
    reader.close()


@_on_posix
def test_links_and_permissions_of_a_file_are_no_change(file: Path) -> None:
    reader = Reader([file])
    changes: tuple[Callable[[], None], ...] = (
        lambda: os.link(file, file.with_suffix(".link")),
        lambda: file.chmod(0o640),
        lambda: file.with_suffix(".link").unlink(),
    )
    for change in changes:
        change()
        read(reader, SIZE - 100, 100)
        reader.check()
    rewrite_unseen(file)
    with pytest.raises(ModelFileError, match="changed while"):
        reader.check()
    reader.close()


def test_a_file_that_is_replaced_is_an_error(file: Path) -> None:
    reader = Reader([file])
    reader.check()
    copy = file.with_suffix(".new")
    copy.write_bytes(file.read_bytes())
    os.utime(copy, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    copy.replace(file)
    with pytest.raises(ModelFileError, match="changed while"):
        reader.check()
    reader.close()


def test_an_error_of_the_disk_is_an_error_of_ours(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader([file])

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(ModelFileError, match=r"could not be read: .*Check the disk"):
        read(reader, 0, 100)
    reader.close()


def test_a_missing_file_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is gone: it was moved"):
        Reader([tmp_path / "none.gguf"])


def test_direct_reads_leave_nothing_in_the_page_cache(file: Path) -> None:
    reader = Reader([file])
    if not reader.direct:
        pytest.skip("the file system of the temporary folder has no direct reads")
    os.sync()
    with file.open("rb") as plain:
        os.posix_fadvise(plain.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        read(reader, 0, SIZE)
        with pytest.raises(BlockingIOError):  # not in the cache, so it would have to wait
            os.preadv(plain.fileno(), [bytearray(PAGE)], 1 << 20, os.RWF_NOWAIT)
    reader.close()


def test_released_pages_read_as_zeros() -> None:
    arena = Arena(4 * PAGE)
    arena.view[:] = b"x" * (4 * PAGE)
    arena.release(PAGE, 2 * PAGE)
    assert bytes(arena.view) == b"x" * PAGE + bytes(2 * PAGE) + b"x" * PAGE


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how large pages are")
def test_what_lies_in_small_pages_is_given_back_to_the_last_one() -> None:
    huge = 2 << 20
    arena = Arena(8 * huge)
    arena.use_small_pages(0, 8 * huge)
    arena.view[:] = bytes([1]) * (8 * huge)
    smaps = Path("/proc/self/smaps").read_text()
    start = f"{arena.address:x}-"
    mapping = smaps[smaps.index(start) :].split("VmFlags", 1)[0]
    assert "AnonHugePages:         0 kB" in mapping
