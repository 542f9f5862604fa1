"""Where conversations are kept: one SQLite file, or PostgreSQL, so that "same but 5 epochs" survives a restart.

It exists to choose the saver by URL and to hold it to known types: what comes out of a database is rebuilt only if it
is on langgraph's list. Next step: `bot.agent.assistant` reads and writes through it, once a turn.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from bot.core.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver


log = logging.getLogger(__name__)


class SqliteSaver(AsyncSqliteSaver):
    """The saver of one SQLite file, which also forgets the steps that led to a thread's present state."""

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Every step stores the whole conversation again, and the newest is all that is ever read."""
        await self.setup()
        newest = "SELECT MAX(checkpoint_id) FROM checkpoints WHERE thread_id = ?1 AND checkpoint_ns = ''"
        older = f"thread_id = ?1 AND checkpoint_ns = '' AND checkpoint_id < ({newest})"  # constants only
        async with self.lock:
            for thread_id in thread_ids:
                await self.conn.execute(f"DELETE FROM writes WHERE {older}", (thread_id,))  # noqa: S608
                await self.conn.execute(f"DELETE FROM checkpoints WHERE {older}", (thread_id,))  # noqa: S608
            await self.conn.commit()


@asynccontextmanager
async def checkpoints(url: str) -> AsyncIterator[BaseCheckpointSaver[str]]:
    """The saver at `sqlite:///PATH` or `postgresql…://…`, its tables made; closed at the end.

    Raises `Misconfigured` for another kind of URL and `Unavailable` when the database does not open.
    """
    # None: only langgraph's known types, whether or not LANGGRAPH_STRICT_MSGPACK came in time.
    serde = JsonPlusSerializer(allowed_msgpack_modules=None)
    scheme, _, rest = url.partition("://")
    if scheme.partition("+")[0] == "sqlite":
        async with _sqlite(Path(rest.removeprefix("/")), serde) as saver:
            yield saver
    elif scheme.partition("+")[0] in {"postgresql", "postgres"}:
        async with _postgres(f"postgresql://{rest}", serde) as saver:
            yield saver
    else:
        raise Misconfigured(f"Conversations cannot be kept in {scheme}://…; write sqlite:///PATH or postgresql://….")


@asynccontextmanager
async def _sqlite(path: Path, serde: JsonPlusSerializer) -> AsyncIterator[BaseCheckpointSaver[str]]:
    import aiosqlite

    try:
        # First without aiosqlite, whose thread outlives a connection that could not be made.
        await asyncio.to_thread(_make_usable, path)
    except (OSError, sqlite3.Error) as error:
        raise Unavailable(f"The conversations' file {path} cannot be opened.") from error
    connection = await aiosqlite.connect(path)
    try:
        await connection.execute("PRAGMA busy_timeout = 10000")
        saver = SqliteSaver(connection, serde=serde)
        await saver.setup()
        yield saver
    finally:
        await connection.close()


def _make_usable(path: Path) -> None:
    """A damaged file is set aside: what was talked about helps to understand a follow-up, and decides nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(path)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise
        found = str(error)
    if found == "ok":
        return
    for end in ("", "-wal", "-shm"):
        part = path.with_name(path.name + end)
        if part.exists():
            part.replace(path.with_name(f"{path.name}.damaged{end}"))
    log.error("%s was damaged (%s): it is kept as %s.damaged, and conversations begin anew.", path, found, path.name)


@asynccontextmanager
async def _postgres(url: str, serde: JsonPlusSerializer) -> AsyncIterator[BaseCheckpointSaver[str]]:
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from psycopg.rows import dict_row
    from psycopg_pool import AsyncConnectionPool

    options: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    # A pool, because a single connection that the server closed would stay closed.
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
        url, min_size=1, max_size=4, kwargs=options, open=False, check=AsyncConnectionPool.check_connection
    )
    try:
        await pool.open(wait=True, timeout=30)
        saver = AsyncPostgresSaver(pool, serde=serde)
        await saver.setup()
    except Exception as error:
        await pool.close()
        raise Unavailable("The conversations' database does not open.") from error
    try:
        yield saver
    finally:
        await pool.close()
