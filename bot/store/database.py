"""Opening the database: pragmas, transactions, migrations, and the one translation of its errors.

SQLite runs with a write-ahead log and synchronous=FULL, so that what was acknowledged survives a power cut, and every
writing transaction begins IMMEDIATE, so that none fails half-way for a lock it could not upgrade.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bot.core.errors import Misconfigured, Unavailable
from bot.store.migrations import HEAD

BUSY_SECONDS = 10  # how long a writer waits for another; beyond it, something holds the database


class Database:
    """One engine and how to talk over it: `reading()` sees a snapshot, `writing()` commits all of it or nothing."""

    def __init__(self, url: str) -> None:
        try:
            self.url = sa.make_url(_with_driver(url))
            self.sqlite = self.url.get_backend_name() == "sqlite"
            self.engine = _create(self.url, self.sqlite)
        except (SQLAlchemyError, ImportError) as error:
            raise Misconfigured("DATABASE_URL cannot be used; write sqlite:///PATH or postgresql://…") from error
        # SQLite lets one write at a time and has others poll; in one process they had better queue.
        self._turn: AbstractAsyncContextManager[None] = asyncio.Lock() if self.sqlite else nullcontext()

    @property
    def shown(self) -> str:
        """The address without its password."""
        return self.url.render_as_string(hide_password=True)

    async def open(self) -> None:
        """Make the file's folder and bring the schema up to date."""
        if self.sqlite and self.url.database:
            folder = Path(self.url.database).parent
            try:
                await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            except OSError as error:
                raise Misconfigured(f"DATABASE_URL: the folder {folder} cannot be made ({error.strerror}).") from error
        async with self.writing() as connection:
            await connection.run_sync(_migrate)

    async def close(self) -> None:
        await self.engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that does not write."""
        async with self._translated(), self.engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that commits when the block ends and leaves nothing behind when it raises."""
        writer = self.engine.execution_options(signalbox_begin="IMMEDIATE")
        async with self._turn, self._translated(), writer.begin() as connection:
            yield connection

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # a broken promise of ours, or a race that the caller knows how to read
        except DBAPIError as error:
            raise Unavailable(_sentence(error, self.shown)) from error
        except OSError as error:
            raise Unavailable(f"The database {self.shown} does not answer ({error}). Is it running?") from error


def _with_driver(url: str) -> str:
    for plain, driven in (("sqlite:", "sqlite+aiosqlite:"), ("postgresql:", "postgresql+psycopg:")):
        if url.startswith(plain):
            return driven + url[len(plain) :]
    return "postgresql+psycopg:" + url[len("postgres:") :] if url.startswith("postgres:") else url


def _create(url: sa.URL, sqlite: bool) -> AsyncEngine:
    if not sqlite:
        return create_async_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": BUSY_SECONDS})
    engine = create_async_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @sa.event.listens_for(engine.sync_engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, below
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        kind = connection.get_execution_options().get("signalbox_begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {kind}")

    return engine


def _migrate(connection: sa.Connection) -> None:
    if sa.inspect(connection).has_table("alembic_version"):
        at = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        if at == HEAD:
            return
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise Misconfigured(
            f"The database was written by another version of Signalbox ({error}). "
            "Run that one, or name another DATABASE_URL."
        ) from error


def _sentence(error: DBAPIError, shown: str) -> str:
    said = str(error.orig).strip().split("\n")[0]
    low = said.lower()
    if "locked" in low or "busy" in low:
        return f"The database {shown} is locked by another program. End that program; nothing was lost, try again."
    if "full" in low or "no space" in low:
        return f"The disk under the database {shown} is full. Free some space; nothing was lost, try again."
    if "readonly" in low or "unable to open" in low or "permission" in low:
        return f"The database {shown} cannot be written ({said}). Check the path and its rights."
    if "not a database" in low or "malformed" in low:
        return f"The file {shown} is not a usable database ({said}). Restore it, or name another in DATABASE_URL."
    kind = (
        "refused a statement" if isinstance(error, DatabaseError) and not error.connection_invalidated else "went away"
    )
    return f"The database {shown} {kind} ({said})."
