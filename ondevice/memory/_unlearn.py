"""Takes back what was learnt from messages that are taken back themselves, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime

from ondevice.memory._forget import delete, profiles_of
from ondevice.memory._profile import refresh as refresh_profile
from ondevice.store import Connection, words_leave


def unlearn(
    connection: Connection, message_ids: Collection[int], conversation_ids: Collection[int]
) -> int:
    """Delete what these messages and conversations have left in the memory; how many that were.

    Unlike what is forgotten, other messages that say the same stay as they are, and facts that
    rest on more than this do, too. What a fact had replaced holds again. The caller commits and
    then calls :meth:`ondevice.store.Database.scrub`.
    """
    gone = [
        row[0]
        for row in connection.execute(
            """
            WITH turn(id) AS (
                SELECT id FROM cube WHERE message_id IN (SELECT value FROM json_each(?1))
                UNION SELECT cube.id FROM cube JOIN source ON source.id = source_id
                WHERE conversation_id IN (SELECT value FROM json_each(?2))
            )
            SELECT id FROM turn
            UNION SELECT link.from_id FROM turn JOIN link ON to_id = turn.id
                JOIN cube ON cube.id = from_id
                WHERE link.kind = 'evidence' AND cube.kind <> 'profile' AND NOT EXISTS (
                    SELECT 1 FROM link AS other WHERE other.from_id = link.from_id
                    AND other.kind = 'evidence' AND other.to_id NOT IN turn
                )
            ORDER BY 1
            """,
            (json.dumps(list(message_ids)), json.dumps(list(conversation_ids))),
        )
    ]
    with words_leave(connection, "memory_index", len(gone)):
        # The latest first: what it replaced holds again, until that goes as well.
        for cube_id in sorted({*gone, *profiles_of(connection, gone)}, reverse=True):
            delete(connection, cube_id)
    if gone:
        refresh_profile(connection, datetime.now().astimezone())
        connection.execute("INSERT OR IGNORE INTO scrub VALUES (1)")
    return len(gone)
