"""What the windows of the app have open, kept in the store until the next start."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from ondevice.paths import ensure_private
from ondevice.store import Connection, Database

_PATIENCE_AT_START = 5.0  # seconds for another program that writes
_PATIENCE = 0.5  # seconds; otherwise what was typed is kept a little later
_NO_WINDOW = ""  # has what was typed in tabs that were closed


class Tab(msgspec.Struct, frozen=True):
    """A conversation that is open in a window, and what is typed there."""

    conversation_id: int | None = None  # None: nothing has been said in it
    shown: bool = False
    draft: str = ""
    edited_id: int | None = None  # the message of the user that the draft is to replace
    beneath: str = ""  # what was typed before that message was taken to be edited
    pastes: Mapping[str, str] = msgspec.field(default_factory=dict)  # name → text


class AppWindow:
    """What one window of the app has open; ``database`` has it for the next start.

    A window that starts while no other is open takes over what those before it have left, however
    they ended. While one is open, another one begins with nothing, and both keep their own. Who is
    open has a file locked beside the store: the system lets go of that with the process.

    Where nothing can be written, nothing is kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._name = uuid.uuid4().hex
        self._folder = database.path.parent / "windows"
        self._kept: tuple[Tab, ...] = ()
        self._handle = -1
        self.put_away: list[str] = []
        """What was typed in tabs that earlier windows closed, oldest first; not kept any longer."""

    def open(self) -> list[Tab]:
        """What earlier windows had open, from left to right, which is this one's from now on."""
        if self._database.read_only:
            return []
        # All within one transaction, so that of two that start at once only one takes over.
        with self._database.write(patience=_PATIENCE_AT_START) as connection:
            try:
                ensure_private(self._folder)
                others = [path for path in self._folder.iterdir() if _is_locked(path)]
                self._handle = _lock(self._folder / self._name)
            except OSError:  # on a disk that knows no locks, say
                return []
            names = [name for (name,) in connection.execute("SELECT DISTINCT window FROM open_tab")]
            if others:
                return []
            self.put_away = [tab.draft for tab in _read(connection, _NO_WINDOW)]
            tabs = [t for name in names if name != _NO_WINDOW for t in _read(connection, name)]
            connection.execute("DELETE FROM open_tab")
            self._write(connection, tabs)
        return tabs

    def keep(
        self, tabs: Sequence[Tab], put_away: Sequence[str] = (), *, surely: bool = False
    ) -> None:
        """Remember what is open now. Raises :class:`StoreUnwritable` where that is not possible.

        ``put_away`` was typed in tabs that are closed now, and the next window has it once more.
        What belongs to a conversation that is no longer there becomes a new one's. ``surely``: also
        if it is what was kept last, for another window may have deleted it with a conversation.
        """
        if self._handle < 0 or (tuple(tabs) == self._kept and not surely and not put_away):
            return
        with self._database.write(patience=_PATIENCE) as connection:
            connection.execute(
                "DELETE FROM open_tab WHERE window = ? AND place >= ?", (self._name, len(tabs))
            )
            self._write(connection, tabs)
            connection.executemany(
                "INSERT INTO open_tab SELECT ?1, coalesce(max(place) + 1, 0), NULL, 0, ?2, NULL, "
                "'' FROM open_tab WHERE window = ?1",
                [(_NO_WINDOW, text) for text in put_away],
            )

    def close(self) -> None:
        """The window ends; what it has open stays for the next one."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
            with suppress(OSError):
                (self._folder / self._name).unlink()

    def _write(self, connection: Connection, tabs: Sequence[Tab]) -> None:
        for place, tab in enumerate(tabs):
            connection.execute(
                "INSERT INTO open_tab "
                "SELECT ?, ?, (SELECT id FROM conversation WHERE id = ?), ?, ?, ?, ? WHERE true "
                "ON CONFLICT DO UPDATE SET conversation_id = excluded.conversation_id, "
                "shown = excluded.shown, draft = excluded.draft, edited_id = excluded.edited_id, "
                "beneath = excluded.beneath",
                (
                    *(self._name, place, tab.conversation_id),
                    *(tab.shown, tab.draft, tab.edited_id, tab.beneath),
                ),
            )
            self._write_pastes(connection, place, tab.pastes)
        self._kept = tuple(tabs)

    def _write_pastes(self, connection: Connection, place: int, pastes: Mapping[str, str]) -> None:
        """They may be megabytes, and all else changes with each letter that is typed."""
        there = connection.execute(
            "SELECT name FROM open_paste WHERE window = ? AND place = ?", (self._name, place)
        ).fetchall()
        before = self._kept[place].pastes if place < len(self._kept) else None
        if pastes == before and {name for (name,) in there} == pastes.keys():
            return
        connection.execute(
            "DELETE FROM open_paste WHERE window = ? AND place = ?", (self._name, place)
        )
        connection.executemany(
            "INSERT INTO open_paste VALUES (?, ?, ?, ?)",
            [(self._name, place, name, content) for name, content in pastes.items()],
        )


def _lock(path: Path) -> int:
    """Lock the file until its handle is closed or the process ends; raises :class:`OSError`."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 - only there

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415 - only there

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _is_locked(path: Path) -> bool:
    """Whether a window that is open has the file; that of one that has ended is removed."""
    try:
        os.close(_lock(path))
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return False
    with suppress(OSError):
        path.unlink()
    return False


def _read(connection: Connection, window: str) -> list[Tab]:
    pastes: dict[int, dict[str, str]] = {}
    for place, name, content in connection.execute(
        "SELECT place, name, content FROM open_paste WHERE window = ?", (window,)
    ):
        pastes.setdefault(place, {})[name] = content
    return [
        Tab(
            conversation_id=row["conversation_id"],
            shown=bool(row["shown"]),
            draft=row["draft"],
            edited_id=row["edited_id"],
            beneath=row["beneath"],
            pastes=pastes.get(row["place"], {}),
        )
        for row in connection.execute(
            "SELECT * FROM open_tab WHERE window = ? ORDER BY place", (window,)
        )
    ]
