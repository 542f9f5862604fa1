"""Opening the database: pragmas, transactions, migrations, and the one translation of its errors.

What talks to it is a plain function of a connection, run in a thread: nothing can be awaited inside a transaction, and
one statement costs no hop between threads. Writers queue for one thread, which commits all that has queued up at once
(a group commit, docs/adr/0007): each `write` is still all or nothing, and returns after the commit that holds it.
What several of them would each write for themselves, they leave to their `Commit`, which writes it once.

SQLite runs with a write-ahead log and synchronous=FULL, so that what was acknowledged survives a power cut. In both
databases one writer works at a time: SQLite's BEGIN IMMEDIATE, an advisory lock in PostgreSQL, replicas included.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, DBAPIError, IntegrityError, SQLAlchemyError

from bot.core.errors import Misconfigured, Unavailable
from bot.store.commit import Commit
from bot.store.migrations import HEAD

BUSY_SECONDS = 10  # how long a writer waits for another; beyond it, something holds the database
READERS = 4  # threads that read at the same time
TOGETHER = 64  # writes in one commit, at most
WRITER_LOCK = 0x51674E  # the key of PostgreSQL's advisory lock
UNIT = "signalbox_unit"  # the savepoint around each write of a commit

T = TypeVar("T")


@dataclass(kw_only=True)
class _Unit:
    """One write that waits for its turn, and who waits for it."""

    act: Callable[[Commit], Any]
    done: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None

    def failed(self, error: BaseException) -> None:
        """An exception that a future would not take, or take for a cancellation, is told by one of ours."""
        told = isinstance(error, Exception) and not isinstance(error, StopIteration)
        self.error = error if told else RuntimeError(f"A write ended with {error!r}.")

    def settle(self) -> None:
        if self.done.done():
            return  # nobody waits any more
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.result)


class Database:
    """One engine and how to talk over it: `read` sees a snapshot, `write` commits all of it or nothing."""

    def __init__(self, url: str) -> None:
        try:
            self.url = sa.make_url(_with_driver(url))
            self.sqlite = self.url.get_backend_name() == "sqlite"
            self.engine = _create(self.url, self.sqlite)
        except (SQLAlchemyError, ImportError) as error:
            raise Misconfigured("DATABASE_URL cannot be used; write sqlite:///PATH or postgresql://…") from error
        # PostgreSQL would let each statement see another moment.
        snapshot = {} if self.sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._reading = self.engine.execution_options(**snapshot)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="database-reader")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="database-writer")
        self._queue: deque[_Unit] = deque()
        self._busy = False  # the writer has been called and has not looked at an empty queue since
        self._lock = threading.Lock()  # over the two above

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
        await self.write(lambda commit: _migrate(commit.connection))

    async def close(self) -> None:
        """What was queued is written first."""
        await asyncio.to_thread(self._writer.shutdown)
        await asyncio.to_thread(self._readers.shutdown)
        self.engine.dispose()

    async def read(self, look: Callable[[sa.Connection], T]) -> T:
        """A transaction that does not write."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._look, look)

    async def write(self, act: Callable[[Commit], T]) -> T:
        """A transaction that is committed when this returns and leaves nothing behind when it raises."""
        unit = _Unit(act=act, done=asyncio.get_running_loop().create_future())
        with self._lock:
            if not self._busy:
                self._writer.submit(self._write_all)  # refused once the database is closed
            self._busy = True
            self._queue.append(unit)
        result: T = await unit.done
        return result

    # -- in threads -------------------------------------------------------------------------------------------------

    def _look(self, look: Callable[[sa.Connection], T]) -> T:
        with self._translated(), self._reading.connect() as connection:
            self._begin(connection, "BEGIN")
            return look(connection)

    def _write_all(self) -> None:
        """Commit after commit until nobody waits."""
        while units := self._taken():
            try:
                self._commit(units)
            except BaseException as error:  # none is written, and what one had found in there has no standing either
                for unit in units:
                    unit.failed(error)
            for loop in {unit.done.get_loop() for unit in units}:
                with suppress(RuntimeError):  # it is closed: nobody waits there any more
                    loop.call_soon_threadsafe(_settle, [unit for unit in units if unit.done.get_loop() is loop])

    def _taken(self) -> list[_Unit]:
        with self._lock:
            units = [self._queue.popleft() for _ in range(min(TOGETHER, len(self._queue)))]
            self._busy = bool(units)
        return units

    def _commit(self, units: list[_Unit]) -> None:
        """One transaction, a savepoint for each: what one of them raises undoes that one alone."""
        with self._translated(), self.engine.begin() as connection:
            self._begin(connection, "BEGIN IMMEDIATE")
            if not self.sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITER_LOCK)))
            commit = Commit(connection)
            for unit in units:
                if unit.done.cancelled():
                    continue
                connection.exec_driver_sql(f"SAVEPOINT {UNIT}")
                try:
                    with self._translated():
                        unit.result = unit.act(commit)
                except BaseException as error:
                    unit.failed(error)
                    self._undo(connection, error)
                connection.exec_driver_sql(f"RELEASE SAVEPOINT {UNIT}")
            try:
                commit.end()
            except IntegrityError as error:  # nobody's race: none of the writes may take it for theirs
                raise Unavailable(
                    f"The database {self.shown} refuses what comes next in its event log; nothing was written. "
                    "See `python -m bot audit verify`."
                ) from error

    def _undo(self, connection: sa.Connection, error: BaseException) -> None:
        """Back to before that write; where it took the whole transaction along, why it did is everybody's answer."""
        try:
            connection.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {UNIT}")
        except SQLAlchemyError as lost:
            gone = Unavailable(f"The database {self.shown} went away in the middle; nothing was written.")
            raise (error if isinstance(error, Unavailable) else gone) from lost

    def _begin(self, connection: sa.Connection, how: str) -> None:
        """SQLite's driver would begin late and in its own way; it was told not to begin at all."""
        if self.sqlite:
            connection.exec_driver_sql(how)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # a broken promise of ours, or a race that the caller knows how to read
        except DBAPIError as error:
            raise Unavailable(_sentence(error, self.shown)) from error
        except OSError as error:
            raise Unavailable(f"The database {self.shown} does not answer ({error}). Is it running?") from error


def _settle(units: list[_Unit]) -> None:
    for unit in units:
        unit.settle()


def _with_driver(url: str) -> str:
    for plain, driven in (("sqlite:", "sqlite+pysqlite:"), ("postgresql:", "postgresql+psycopg:")):
        if url.startswith(plain):
            return driven + url[len(plain) :]
    return "postgresql+psycopg:" + url[len("postgres:") :] if url.startswith("postgres:") else url


def _create(url: sa.URL, sqlite: bool) -> sa.Engine:
    if not sqlite:
        waits = f"-c lock_timeout={BUSY_SECONDS}s -c idle_in_transaction_session_timeout={3 * BUSY_SECONDS}s"
        # A server that vanished without a word: what was sent to it must be heard of, and so must a silent wait.
        silence = {"tcp_user_timeout": 1000 * BUSY_SECONDS, "keepalives_idle": BUSY_SECONDS, "keepalives_interval": 5}
        arguments = {"connect_timeout": BUSY_SECONDS, "options": waits, "keepalives_count": 3, **silence}
        return sa.create_engine(url, pool_pre_ping=True, connect_args=arguments)
    arguments = {"timeout": BUSY_SECONDS, "check_same_thread": False}
    engine = sa.create_engine(url, paramstyle="named", connect_args=arguments)  # named: each is converted once

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

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
