"""Watch streams, and how a test spoils them: closed, silent, too old; with bookmarks as often as the test says, but for
events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

from tests.fakes.kubernetes import problems
from tests.fakes.kubernetes.kinds import Kind
from tests.fakes.kubernetes.problems import Json
from tests.fakes.kubernetes.store import Change, Store

Test = Callable[[Json], bool]
YES = ("1", "true", "True")


@dataclass(eq=False)
class Stream:
    """One open watch. A None in its queue ends it."""

    kind: Kind
    namespace: str
    fits: Test | None
    queue: asyncio.Queue[Change | None] = field(default_factory=asyncio.Queue)
    silent: bool = False
    cut: bool = False

    def line(self, change: Change) -> bytes | None:
        """What this stream says of a change: an object that stops to fit is deleted, one that begins to is added."""
        if change.kind is not self.kind or (self.namespace and change.namespace != self.namespace):
            return None
        type_ = change.type
        if self.fits is not None:
            now = self.fits(change.entry.obj)
            old = change.before is not None and self.fits(change.before.obj)
            if not now and not old:
                return None
            if type_ == "MODIFIED" and not (now and old):
                type_ = "ADDED" if now else "DELETED"
        return b'{"type":"' + type_.encode() + b'","object":' + change.entry.body + b"}\n"


@dataclass
class Streams:
    """All that is open: `now`, the `most` at once, how many were `opened` ever."""

    store: Store
    bookmark_interval: float = 60.0
    open: set[Stream] = field(default_factory=set)
    most: int = 0
    opened: int = 0
    expired: bool = False  # every version is too old

    @property
    def now(self) -> int:
        return len(self.open)

    def close(self, *, cut: bool = False) -> None:
        """Every stream ends: as if its time was over, or `cut` with its connection, in the middle of a line."""
        for one in self.open:
            one.cut = cut
            one.queue.put_nowait(None)

    def silence(self) -> None:
        """What is open now stays open and says nothing more, not even bookmarks; later streams are well."""
        for one in self.open:
            one.silent = True

    async def serve(
        self, request: web.BaseRequest, kind: Kind, namespace: str, fits: Test | None
    ) -> web.StreamResponse:
        query, stream = request.query, Stream(kind, namespace, fits)
        since = int(query.get("resourceVersion") or 0)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if since and (self.expired or since < self.store.oldest):
            gone = problems.too_old(since, self.store.oldest).status
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return response
        for change in self._before(since, kind):
            stream.queue.put_nowait(change)
        self.store.watchers[stream.queue] = kind
        self.open.add(stream)
        self.most, self.opened = max(self.most, self.now), self.opened + 1
        marks = kind.marked and query.get("allowWatchBookmarks") in YES
        try:
            async with asyncio.timeout(float(query.get("timeoutSeconds") or 1800)):
                await self._write(response, stream, marks)
            if stream.cut and request.transport is not None:
                await response.write(b'{"type":"MODIF')
                request.transport.close()
        except TimeoutError:
            if marks and not stream.silent:
                await response.write(self._bookmark(kind))
        finally:
            self.open.discard(stream)
            self.store.watchers.pop(stream.queue, None)
        return response

    def _before(self, since: int, kind: Kind) -> list[Change]:
        if since:
            return [change for change in self.store.history if change.version > since and change.kind is kind]
        return [
            Change(version=entry.version, type="ADDED", kind=kind, namespace=where, entry=entry, before=None)
            for (where, _), entry in self.store.scan(kind)
        ]

    async def _write(self, response: web.StreamResponse, stream: Stream, marks: bool) -> None:
        """Until the stream is closed: what is in the queue goes out together. Time is marked whatever else is said."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self.bookmark_interval
        while True:
            try:
                async with asyncio.timeout_at(due if marks else None):
                    changes = [await stream.queue.get()]
            except TimeoutError:
                due = loop.time() + self.bookmark_interval
                if not stream.silent and stream.queue.empty():
                    await response.write(self._bookmark(stream.kind))
                continue
            while not stream.queue.empty():
                changes.append(stream.queue.get_nowait())
            ends = None in changes
            lines = [stream.line(change) for change in changes if change is not None]
            said = b"".join(line for line in lines if line is not None)
            if said and not stream.silent:
                await response.write(said)
            if ends:
                return

    def _bookmark(self, kind: Kind) -> bytes:
        meta = {"resourceVersion": str(self.store.version)}
        mark = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta}
        return json.dumps({"type": "BOOKMARK", "object": mark}).encode() + b"\n"
