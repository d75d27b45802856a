"""The SQLite under the store: SQLCipher's build, which also brings FTS5's ``secure-delete``.

The SQLite of the Python build itself can be too old for that. The types are the standard
library's: the two modules have one interface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite3 import Connection, DatabaseError, Error, OperationalError, Row, connect
else:
    from sqlcipher3.dbapi2 import (
        Connection,
        DatabaseError,
        Error,
        OperationalError,
        Row,
        connect,
    )

#: What reading and writing raise. Of a damaged file the driver may also say that a text, or the
#: message of an error, is not UTF-8.
Fault = (Error, UnicodeDecodeError)

__all__ = ["Connection", "DatabaseError", "Error", "Fault", "OperationalError", "Row", "connect"]
