"""``ondevice memory`` from the command line: everything, with JSON, and clear errors."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import keyring
import pytest
from hostile_memories import HOSTILE
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring
from keyring.backends.null import Keyring as NullKeyring
from keyring.errors import PasswordDeleteError
from source_tree import ROOT

from ondevice import paths
from ondevice.cli import run
from ondevice.errors import StoreError
from ondevice.memory import Memory
from ondevice.store import Database


class Commands:
    """Runs commands in-process and keeps what they print."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.error = ""

    def __call__(self, *arguments: object, code: int = 0) -> str:
        got = run(["memory", *map(str, arguments)])
        out, self.error = self._capfd.readouterr()
        assert got == code, self.error
        return out

    def json(self, *arguments: object) -> Any:
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def memory(capfd: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capfd)


def test_a_note_without_its_option_is_told_of_it(memory: Commands) -> None:
    memory("add", "The spare key is under the blue pot", code=1)
    assert "To remember a note, give it with --text." in memory.error


def test_a_note_is_added_found_shown_and_forgotten(memory: Commands) -> None:
    added = memory.json("add", "--text", "The spare key is under the blue pot", "--tag", "home")
    number = added["added"][0]["note"]["number"]
    (hit,) = memory.json("search", "spare", "key")["hits"]
    assert (hit["number"], hit["kind"]) == (number, "note")
    assert memory.json("show", number)["tags"] == ["home"]
    assert "blue pot" in memory("show", number)
    assert [cube["number"] for cube in memory.json("list", "--tag", "home")] == [number]
    assert memory.json("forget", number, "--yes") == {"forgotten": [number]}
    assert memory.json("search", "spare key")["hits"] == []
    assert "No memories match" in memory("search", "spare key")
    for file in paths.data_dir().iterdir():
        assert b"blue" not in file.read_bytes(), file.name


def test_a_search_says_when_nothing_fits(memory: Commands) -> None:
    memory("add", "--text", "The lease of the flat ends in April")
    assert "lease" in memory("search", "when", "does", "the", "lease", "end")
    assert memory.error == ""
    assert "lease" in memory("search", "end of the Bronze Age in Crete")
    assert "No memory answers this" in memory.error


def test_nothing_is_forgotten_without_a_yes(
    memory: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory("add", "--text", "keep me")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    memory("forget", "1:0", code=130)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    memory("forget", "1:0", code=2)
    assert "add --yes" in memory.error
    assert memory.json("search", "keep")["hits"]
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    memory("forget", "1:0")
    assert not memory.json("search", "keep")["hits"]


def test_facts_and_secrets_are_told(memory: Commands) -> None:
    out = memory("add", "--text", "I live in Lyon. My password is hunter22")
    assert "Understood: The user lives in Lyon" in out
    assert "Left out: password" in out
    assert "hunter22" not in memory("list")
    memory("add", "--text", "I live in Nantes")
    story = memory.json("history", "2:0")
    assert [cube["status"] for cube in story] == ["superseded", "active"]
    assert memory("history", "2:8").count("\n") == 2


def test_a_folder_is_added_with_all_that_can_be_read(memory: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "papers"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.md").write_text("# Alpha\n\nabout walruses")
    (folder / "deep" / "b.txt").write_text("Beta, about ocelots")
    (folder / "image.png").write_bytes(b"\x89PNG")
    (folder / ".hidden").write_text("not this")
    added = memory.json("add", folder)["added"]
    assert [(Path(entry["file"]).name, entry["chunks"]) for entry in added] == [
        ("a.md", 1),
        ("b.txt", 1),
    ]
    (hit,) = memory.json("search", "ocelots")["hits"]
    assert hit["source"]["name"] == str((folder / "deep" / "b.txt").resolve())
    assert "unchanged" in memory("add", folder)


def test_what_holds_no_text_in_a_folder_is_left_out(memory: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "a.pdf").write_bytes(b"%PDF-1.4 and no more")
    (folder / "b.txt").write_bytes(b"\x9d\x00\xff")
    (folder / "c.txt").write_bytes(b"")
    (folder / "d.txt").write_text("about ocelots")
    (folder / "loop").symlink_to("loop")
    added = memory.json("add", folder)["added"]
    names = [(Path(entry["file"]).name, "left_out" in entry) for entry in added]
    assert names == [("a.pdf", True), ("b.txt", True), ("c.txt", True), ("d.txt", False)]
    assert memory.error.count("Left out: ") == memory.error.count("\n") == 3
    for name in ("a.pdf", "b.txt", "c.txt", "loop"):
        memory("add", folder / name, code=1)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_texts_of_other_editors_are_read(memory: Commands, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "letter.txt").write_text("Grüße aus Köln", encoding=encoding)
    memory("add", tmp_path / "letter.txt")
    assert memory.json("search", "koln")["hits"][0]["content"] == "Grüße aus Köln"


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_and_texts_that_are_not_utf8(
    memory: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/Gr\xfc\xdfe.txt"))
    file.write_text("about ocelots")
    assert "Gr��e.txt: 1 chunk" in memory("add", file)
    assert memory.json("add", file)["added"][0]["chunks"] == 0
    assert memory.json("search", "ocelots")["hits"][0]["source"]["name"].endswith("Gr��e.txt")
    wrong = os.fsdecode(b"Gr\xfc\xdfe")
    monkeypatch.setattr("sys.stdin", io.StringIO(wrong))
    for arguments in (
        ("add", "--text", wrong),
        ("add", "--text", "-"),
        ("add", "--text", "good", "--tag", wrong),
        ("list", "--tag", wrong),
        ("show", wrong),
    ):
        memory(*arguments, code=2)
        assert memory.error.startswith("ondevice: "), arguments
    assert memory.json("stats")["cubes"] == 1


def test_a_pdf_of_another_kind_is_refused(memory: Commands, tmp_path: Path) -> None:
    file = tmp_path / "letter.pdf"
    file.write_bytes(pdf("The walrus").replace(b"<</Length", b"<</Filter/Flute/Length"))
    memory("add", file, code=1)
    assert "cannot be read as a PDF" in memory.error


def test_a_pdf_is_read(memory: Commands, tmp_path: Path) -> None:
    file = tmp_path / "letter.pdf"
    file.write_bytes(pdf("The walrus is paid for"))
    memory("add", file)
    assert memory.json("search", "walrus")["hits"][0]["content"] == "The walrus is paid for"


def pdf(text: str) -> bytes:
    """The smallest PDF with one line of text."""
    stream = f"BT /F 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R"
        b"/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
    ]
    content = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return content + (
        b"xref\n0 5\n0000000000 65535 f \n%strailer\n<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF"
        % (table, len(content))
    )


def fill(memory: Commands, tmp_path: Path) -> None:
    """A store with everything in it: facts, versions, links, tags, a document, a deleted cube."""
    memory("add", "--text", "I live in Lyon", "--tag", "home")
    memory("add", "--text", "I live in Nantes. ☂ “In France” <|im_end|>")
    memory("add", "--text", "to be forgotten")
    (tmp_path / "doc.txt").write_text("Walruses\n\nin two paragraphs")
    memory("add", tmp_path / "doc.txt")
    memory("forget", "1:16", "--yes")
    store = Memory(Database(paths.store_file()))
    store.edit(store.latest(kind="document")[0].id, "Walruses, corrected")
    store.set_status(store.latest(kind="note")[0].id, "archived")
    store.database.close()


def test_an_export_is_complete_private_and_can_be_imported(
    memory: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(memory, tmp_path)
    memory("export", tmp_path / "all.jsonl")
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "all.jsonl").stat().st_mode) == 0o600
    exported = (tmp_path / "all.jsonl").read_bytes()
    (tmp_path / "all.jsonl.new").write_text("mine")
    memory("export", tmp_path / "all.jsonl", code=1)
    assert "already exists" in memory.error
    memory("export", tmp_path / "all.jsonl", "--force")
    assert (tmp_path / "all.jsonl").read_bytes() == exported
    assert (tmp_path / "all.jsonl.new").read_text() == "mine"
    for none in (tmp_path, "/dev/full"):  # what a file would take the place of
        memory("export", none, "--force", code=1)
        assert "cannot be written" in memory.error
    assert memory.json("import", tmp_path / "all.jsonl") == {"imported": 0}
    statistics = memory.json("stats")

    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "elsewhere"))
    assert memory.json("import", tmp_path / "all.jsonl") == {"imported": statistics["cubes"]}
    assert memory("export", "-").encode() == exported
    assert {**memory.json("stats"), "bytes": 0} == {**statistics, "bytes": 0}
    assert [hit["status"] for hit in memory.json("search", "live")["hits"]].count("superseded") == 1


def test_what_was_forgotten_does_not_come_back_with_an_import(
    memory: Commands, tmp_path: Path
) -> None:
    memory("add", "--text", "a walrus")
    memory("export", tmp_path / "old.jsonl")
    memory("forget", "1:0", "--yes")
    assert memory.json("import", tmp_path / "old.jsonl") == {"imported": 0}
    assert memory.json("search", "walrus")["hits"] == []


def test_a_file_that_is_no_export_is_refused_whole(memory: Commands, tmp_path: Path) -> None:
    memory("add", "--text", "a walrus")
    memory("export", tmp_path / "good.jsonl")
    good = (tmp_path / "good.jsonl").read_text().splitlines()
    wrong = tmp_path / "wrong.jsonl"
    for lines in (
        ["not JSON"],
        good[1:],  # no header
        [*good, "{}"],
        [good[0], good[2].replace('"place":["', '"place":["0')],  # a cube without its source
        ['{"type":"ondevice-memory","format":99}'],
        [*good[:2], good[2].replace('"note"', '"novel"')],
    ):
        wrong.write_text("\n".join(lines))
        memory("import", wrong, code=1)
        assert memory.error


def test_markdown_is_for_reading(memory: Commands, tmp_path: Path) -> None:
    fill(memory, tmp_path)
    text = memory("export", "-", "--markdown")
    assert "## Notes" in text and "## Facts" in text and "doc.txt" in text
    assert "(1:0, note) I live in Lyon" in text
    assert "forgotten" not in text


def test_a_damaged_store_says_so_and_the_rest_can_be_rescued(
    memory: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        memory("add", "--text", "padding to have more than one note")
    with_store = Memory(Database(paths.store_file()))
    for number in range(400):
        with_store.add(f"Walrus number {number} " + "and more of it " * 10)
    assert with_store.check() == []
    with_store.database.close()

    content = bytearray(paths.store_file().read_bytes())
    page = content.index(b"Walrus number 200 ") // 4096 * 4096
    content[page : page + 4096] = os.urandom(4096)
    paths.store_file().write_bytes(content)

    memory("check", code=1)
    assert "--salvage" in memory.error
    memory("export", tmp_path / "rest.jsonl", "--salvage")
    assert "could not be read" in memory.error
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "elsewhere"))
    imported = memory.json("import", tmp_path / "rest.jsonl")["imported"]
    assert 380 < imported < 401
    assert memory.json("search", "walrus number 399")["hits"]
    memory("check")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"walruses", b"walr\xff\xfees"),  # a text that is not UTF-8
        (b"2024-05-01T", b"2024-55-01T"),  # a time that is none
        (b"activewalr", b"aZtivewalr"),  # a state that there is not
        (b"noteactive", b"n\xffteactive"),  # a kind that is not UTF-8 either
        (b"attachment", b"attach\x8bent"),  # a schema that SQLite complains of in such words
    ],
)
def test_damage_of_a_few_bytes_is_no_traceback_and_what_is_rescued_can_be_imported(
    memory: Commands,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    before: bytes,
    after: bytes,
) -> None:
    store = Memory(Database(paths.store_file()))
    for text in ("walruses are large", "ocelots are small"):
        store.add(text, at=datetime(2024, 5, 1, tzinfo=UTC))
    store.database.close()
    content = paths.store_file().read_bytes()
    assert before in content
    paths.store_file().write_bytes(content.replace(before, after))

    rescued = tmp_path / "rest.jsonl"
    for arguments in (
        ("list",),
        ("search", "walruses in May 2024"),
        ("show", "1:0"),
        ("check",),
        ("export", tmp_path / "all.jsonl"),
        ("export", "--salvage", rescued),
    ):
        code = run(["memory", *map(str, arguments)])
        assert code in (0, 1), arguments  # and nothing else is raised
    capfd.readouterr()
    if rescued.exists():
        monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "elsewhere"))
        assert memory.json("import", rescued) == {"imported": 2}
        assert len(memory.json("list")) == 2
    else:
        assert before == b"attachment"


def test_a_store_that_is_nothing_but_noise_is_an_error(memory: Commands, tmp_path: Path) -> None:
    paths.data_dir().mkdir(parents=True)
    paths.store_file().write_bytes(b"SQLite format 3\0" + os.urandom(8000))
    memory("list", code=1)
    assert "--salvage" in memory.error
    memory("export", tmp_path / "x", "--salvage", code=1)
    assert "Nothing" in memory.error
    assert not (tmp_path / "x").exists()


def test_a_passphrase_is_asked_for_or_taken_from_the_environment(
    memory: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory("add", "--text", "a walrus")
    database = Database(paths.store_file())
    database.set_passphrase("open sesame")
    database.close()
    memory("list", code=1)
    assert "ONDEVICE_PASSPHRASE" in memory.error
    monkeypatch.setenv("ONDEVICE_PASSPHRASE", "wrong")
    memory("list", code=1)
    monkeypatch.setenv("ONDEVICE_PASSPHRASE", "open sesame")
    assert "walrus" in memory("list")
    memory("passphrase", "--remove")
    monkeypatch.delenv("ONDEVICE_PASSPHRASE")
    assert "walrus" in memory("list")


def test_a_new_passphrase_can_be_piped_in(
    memory: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory("add", "--text", "a walrus")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    memory("passphrase", code=2)
    assert "pipe it in" in memory.error
    assert "walrus" in memory("list")
    monkeypatch.setattr(sys, "stdin", io.StringIO("open sesame\nand more\n"))
    assert "encrypted" in memory("passphrase")
    monkeypatch.setenv("ONDEVICE_PASSPHRASE", "open sesame")
    assert "walrus" in memory("list")


def test_a_passphrase_is_the_same_however_its_letters_are_written(
    memory: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory("add", "--text", "a walrus")
    composed, apart = (unicodedata.normalize(form, "Zürich") for form in ("NFC", "NFD"))
    for untypable in ("open\0sesame", "open\udcffsesame", "  "):
        monkeypatch.setattr(sys, "stdin", io.StringIO(untypable))
        memory("passphrase", code=2)
    monkeypatch.setattr(sys, "stdin", io.StringIO(apart))
    memory("passphrase")
    monkeypatch.setenv("ONDEVICE_PASSPHRASE", composed)
    assert "walrus" in memory("list")
    database = Database(paths.store_file(), composed)
    database.set_passphrase(apart)  # as earlier versions did
    database.close()
    assert "walrus" in memory("list")
    monkeypatch.setenv("ONDEVICE_PASSPHRASE", "open\udcffsesame")
    memory("list", code=1)
    assert "not UTF-8" in memory.error


def test_a_passphrase_may_be_typed_three_times(
    memory: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    memory("add", "--text", "a walrus")
    database = Database(paths.store_file())
    database.set_passphrase("open sesame")
    database.close()
    typed = iter(["open", "sesame", "open sesame", "open", "sesame", "open", "open sesame"])
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(click, "prompt", lambda *_, **__: next(typed))
    assert "walrus" in memory("list")
    assert memory.error.count("Try again.") == 2
    memory("list", code=1)
    assert next(typed) == "open sesame"


class Ring(KeyringBackend):
    """A keyring in memory."""

    priority = -1  # never found by itself

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise PasswordDeleteError


@pytest.fixture
def ring() -> Iterator[Ring]:
    before, ring = keyring.get_keyring(), Ring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


def test_the_keyring_opens_the_store_and_the_code_does_without_it(
    memory: Commands, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory("add", "--text", "a walrus")
    said = memory("passphrase", "--keyring")
    (code,) = set(ring.kept.values())
    assert code in said
    assert b"walrus" not in paths.store_file().read_bytes()
    assert "walrus" in memory("list")
    ring.kept.clear()
    monkeypatch.setenv("ONDEVICE_PASSPHRASE", "wrong")
    memory("list", code=1)
    assert memory.error.count("\n") == 1  # nothing of SQLCipher's own
    monkeypatch.setenv("ONDEVICE_PASSPHRASE", code)
    assert "walrus" in memory("list")
    memory("passphrase", "--keyring")
    assert code not in ring.kept.values()
    monkeypatch.delenv("ONDEVICE_PASSPHRASE")
    memory("passphrase", "--remove")
    assert not ring.kept
    assert "walrus" in memory("list")


def test_a_keyring_that_keeps_nothing_encrypts_nothing(memory: Commands, ring: Ring) -> None:
    memory("add", "--text", "a walrus")
    keyring.set_keyring(NullKeyring())  # as “keyring --disable” does
    memory("passphrase", "--keyring", code=2)
    assert "stores nothing" in memory.error
    assert "walrus" in memory("list")


def test_a_change_of_the_code_that_fails_or_is_killed_locks_nobody_out(
    memory: Commands, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory("add", "--text", "a walrus")
    memory("passphrase", "--keyring")
    change = Database.set_passphrase

    def fail(_: Database, __: str | None) -> None:
        raise StoreError("no")

    class Killed(BaseException):
        pass

    def be_killed(database: Database, passphrase: str | None) -> None:
        change(database, passphrase)
        raise Killed

    for _ in range(2):
        monkeypatch.setattr(Database, "set_passphrase", fail)
        memory("passphrase", "--keyring", code=1)
        assert "walrus" in memory("list")
        monkeypatch.setattr(Database, "set_passphrase", be_killed)
        with pytest.raises(Killed):
            memory("passphrase", "--keyring")
        assert "walrus" in memory("list")


def test_without_a_keyring_the_store_stays_as_it_was(memory: Commands, ring: Ring) -> None:
    keyring.set_keyring(NoKeyring())
    memory("add", "--text", "a walrus")
    memory("passphrase", "--keyring", code=2)
    assert "your own passphrase" in memory.error
    assert "walrus" in memory("list")


def test_the_terminal_gets_no_escape_sequence(memory: Commands, tmp_path: Path) -> None:
    store = Memory(Database(paths.store_file()))
    document = tmp_path / "hostile.txt"
    document.write_text("\n\n".join(HOSTILE).replace("\0", ""))
    for cube in (*(store.add(text).cube for text in HOSTILE), *store.add_file(document)):
        for command in ("show", "history"):
            assert_harmless(memory(command, cube.label))
    store.database.close()
    for arguments in (("list",), ("search", "zebra"), ("export", "-", "--markdown")):
        out = memory(*arguments)
        assert "zebra" in out
        assert_harmless(out)


def assert_harmless(text: str) -> None:
    """Fail if there is a control character but for the ends of lines."""
    assert all(char == "\n" or unicodedata.category(char) != "Cc" for char in text), text


@pytest.mark.parametrize(
    "arguments",
    [
        ("add",),
        ("add", "--text", " "),
        ("search",),
        ("show", "nonsense"),
        ("export", "x", "--salvage", "--markdown"),
    ],
)
def test_wrong_use_is_explained(memory: Commands, arguments: tuple[str, ...]) -> None:
    memory(*arguments, code=2)
    assert memory.error


def test_every_command_has_json_and_is_documented() -> None:
    from ondevice.cli.memory import command

    text = ROOT.joinpath("docs", "guide", "memory.md").read_text("utf-8")
    for name, sub in command.commands.items():
        assert f"memory {name}" in text, name
        assert name == "passphrase" or any("--json" in option.opts for option in sub.params), name


def test_proposals_are_listed_with_their_sentences_and_decided(memory: Commands) -> None:
    added = memory("add", "--text", "We live in Lyon and I'm vegan. What can I cook?")
    assert "Proposed as 2:0" in added and "Understood" not in added
    listed = memory.json("list", "--status", "proposed")
    assert {fact["sentence"] for fact in listed} == {"We live in Lyon and I'm vegan."}
    assert "from “We live in Lyon and I'm vegan.”" in memory("list", "--status", "proposed")
    home, diet = sorted(fact["number"] for fact in listed)
    assert memory("accept", home).startswith("Accepted: ")
    assert [fact["status"] for fact in memory.json("reject", diet)] == ["archived"]
    assert memory.json("list", "--status", "proposed") == []
