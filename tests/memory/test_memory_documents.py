"""Files become text within bounds, in whatever encoding, and what is left out is named."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from ondevice.errors import FileError
from ondevice.memory import read_file

WESTERN = "Le café crème coûte 2 €, déjà payé. Ça va très bien à Besançon, où l’été est là. "
POLISH = "Zażółć gęślą jaźń. Wczoraj byłem w Łodzi i widziałem się z Małgorzatą Świątek. "
RUSSIAN = "Вчера я был в Москве и видел там своего старого друга Ивана Петровича. "


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (WESTERN, "cp1252"),
        (WESTERN.replace("€", "euros").replace("’", "'"), "latin-1"),
        (WESTERN, "utf-8-sig"),
        (WESTERN, "utf-16"),
        (WESTERN * 20, "cp1252"),
        (POLISH * 20, "cp1250"),
        (RUSSIAN * 3, "cp1251"),
        (RUSSIAN * 3, "koi8-r"),
    ],
)
def test_text_of_other_encodings_is_read(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert read_file(tmp_path / "a.txt") == text


@pytest.mark.parametrize("content", [bytes(range(256)) * 4, b"PK\3\4\x81\0\0", b"\xff\1\2" * 50])
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(FileError, match="text"):
        read_file(tmp_path / "a.txt")


@pytest.mark.parametrize("name", ["a.txt", "a.pdf"])
def test_a_file_of_two_gigabytes_is_refused_at_once(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(FileError, match="MB"):
        read_file(tmp_path / name)


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")
@pytest.mark.parametrize("name", ["a.txt", "a.pdf"])
def test_pipes_and_devices_are_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / f"link-{name}").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / name)
    for path in (tmp_path / name, tmp_path / f"link-{name}"):
        with pytest.raises(FileError, match="ordinary"):
            read_file(path)


def pdf(content: bytes) -> bytes:
    """A PDF of one page with that content, packed."""
    packed = zlib.compress(content, 9)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R"
        b"/Resources<</Font<</F 5 0 R>>>>>>",
        b"<</Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (len(packed), packed),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    data, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(data))
        data += b"%d 0 obj %s endobj\n" % (number, body)
    start = len(data)
    data += b"xref\n0 6\n0000000000 65535 f \n"
    data += b"".join(b"%010d 00000 n \n" % place for place in places)
    return data + b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % start


def test_a_pdf_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf(b"BT /F 1 Tf (about walruses) Tj ET"))
    assert "about walruses" in read_file(tmp_path / "a.pdf")


def test_a_small_pdf_that_wants_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ondevice.memory._pdf_text.MOST_SECONDS", 2)
    (tmp_path / "a.pdf").write_bytes(pdf(b"BT /F 1 Tf " + b"(x) Tj " * 5_000_000 + b"ET"))
    assert (tmp_path / "a.pdf").stat().st_size < 200_000
    began = time.monotonic()
    with pytest.raises(FileError, match="as a PDF: it"):
        read_file(tmp_path / "a.pdf")
    assert time.monotonic() - began < 20


def test_files_of_other_kinds_in_a_folder_are_named(tmp_path: Path) -> None:
    for name in ("a.md", "b.docx", "c.html", "d.csv", "e.py", ".hidden.csv"):
        (tmp_path / name).write_text("about walruses")
    command = [sys.executable, "-m", "ondevice", "memory", "add", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "a.md: 1 chunk" in result.stdout
    for name in ("b.docx", "c.html", "d.csv", "e.py"):
        assert f"Left out: {tmp_path / name}: " in result.stderr
    assert "hidden" not in result.stderr
