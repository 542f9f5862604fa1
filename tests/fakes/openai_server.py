"""A model server for tests: OpenAI's chat-completions protocol over a real socket, scripted and strict.

It refuses what the real service refuses (a wrong key, an unpaired tool call, a malformed request) and can do what a
real one does on a bad day (429, 5xx, silence, a body that is not JSON). Each request takes the script's next reply.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

KEY = "sk-of-the-tests"
PIECE = 7  # characters of a streamed delta: names, numbers and escapes get cut in the middle


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What to answer to one request."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()  # name and arguments, as the raw text that is sent
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None  # the body instead of a well-formed one
    hang_s: float = 0  # before anything is sent
    gate: asyncio.Event | None = None  # waited for before anything is sent
    pace_s: float = 0  # between two pieces of a stream


def says(text: str) -> Reply:
    return Reply(text=text)


def calls(*wanted: tuple[str, dict[str, Any]], text: str = "") -> Reply:
    return Reply(text=text, calls=tuple((name, json.dumps(arguments)) for name, arguments in wanted))


def calls_raw(name: str, arguments: str) -> Reply:
    """A call whose arguments are sent as they are, JSON or not."""
    return Reply(calls=((name, arguments),))


def fails(status: int, retry_after: str | None = None) -> Reply:
    return Reply(status=status, headers={"Retry-After": retry_after} if retry_after else {})


def hangs(seconds: float) -> Reply:
    return Reply(hang_s=seconds, text="too late")


def garbage() -> Reply:
    return Reply(raw=b'{"id": "x", "choices": [{"message": {"role": "assist')


class OpenAIServer:
    """`async with OpenAIServer(replies) as server`: `server.url` is a base URL, `server.requests` what was asked."""

    def __init__(
        self, script: Sequence[Reply] = (), *, answer: Callable[[dict[str, Any]], Reply] | None = None, key: str = KEY
    ) -> None:
        self._script = list(script)
        self._answer = answer
        self._key = key
        self._made = 0
        self.requests: list[dict[str, Any]] = []  # the bodies, those refused included
        self.refusals: list[str] = []
        self.at_once = 0  # requests that wait for their reply now
        self.most_at_once = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def __aenter__(self) -> OpenAIServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                await self._respond(writer, head[0], headers, body)
            finally:
                self.at_once -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _respond(self, writer: asyncio.StreamWriter, line: str, headers: dict[str, str], body: bytes) -> None:
        if headers.get("authorization") != f"Bearer {self._key}":
            return await self._refuse(writer, 401, "Incorrect API key provided", "invalid_api_key")
        if line.split()[:2] != ["POST", "/v1/chat/completions"]:
            return await self._refuse(writer, 404, f"Unknown request {line}", "not_found")
        request = json.loads(body)
        self.requests.append(request)
        if problem := _problem(request):
            self.refusals.append(problem)
            return await self._refuse(writer, 400, problem, "invalid_request_error")
        reply = self._answer(request) if self._answer else self._script.pop(0) if self._script else fails(500)
        if reply.gate:
            await reply.gate.wait()
        await asyncio.sleep(reply.hang_s)
        if reply.status >= 400:
            return await self._refuse(writer, reply.status, "scripted", "scripted", reply.headers)
        if reply.raw is not None:
            return await _send(writer, 200, "application/json", reply.raw)
        if request.get("stream"):
            pieces = self._events(request, reply)
            return await _send(writer, 200, "text/event-stream", None, pieces=pieces, pace_s=reply.pace_s)
        await _send(writer, 200, "application/json", json.dumps(self._whole(request, reply)).encode())

    async def _refuse(
        self, writer: asyncio.StreamWriter, status: int, message: str, code: str, headers: dict[str, str] | None = None
    ) -> None:
        error = {"error": {"message": message, "type": code, "param": None, "code": code}}
        await _send(writer, status, "application/json", json.dumps(error).encode(), headers or {})

    def _calls(self, reply: Reply) -> list[dict[str, Any]]:
        made = []
        for name, arguments in reply.calls:
            self._made += 1
            function = {"name": name, "arguments": arguments}
            made.append({"id": f"call_{self._made}", "type": "function", "function": function})
        return made

    def _whole(self, request: dict[str, Any], reply: Reply) -> dict[str, Any]:
        wanted = self._calls(reply)
        message = {"role": "assistant", "content": reply.text or None, **({"tool_calls": wanted} if wanted else {})}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if wanted else "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return {**_frame(request, "chat.completion"), "choices": [choice], "usage": usage}

    def _events(self, request: dict[str, Any], reply: Reply) -> Iterator[bytes]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": piece} for piece in _cut(reply.text)]
        for index, call in enumerate(self._calls(reply)):
            function = call["function"]
            start = {**call, "index": index, "function": {"name": function["name"], "arguments": ""}}
            deltas.append({"tool_calls": [start]})
            deltas += [
                {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
                for piece in _cut(function["arguments"])
            ]
        for delta in deltas:
            yield _event(request, delta, None)
        yield _event(request, {}, "tool_calls" if reply.calls else "stop")
        yield b"data: [DONE]\n\n"


def _problem(request: dict[str, Any]) -> str | None:
    """What the real service would refuse in this request, or None."""
    messages = request.get("messages")
    if not isinstance(request.get("model"), str) or not isinstance(messages, list) or not messages:
        return "model and messages are required"
    names = [tool.get("function", {}).get("name") for tool in request.get("tools", [])]
    if len(set(names)) != len(names) or not all(names):
        return "tools need distinct names"
    open_calls: set[str] = set()
    for message in messages:
        role = message.get("role")
        if role not in {"system", "developer", "user", "assistant", "tool"}:
            return f"unknown role {role}"
        if role == "tool":
            if message.get("tool_call_id") not in open_calls:
                return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
            open_calls.discard(message["tool_call_id"])
            continue
        if open_calls:
            return f"an assistant message with 'tool_calls' must be followed by tool messages: {sorted(open_calls)}"
        if role == "assistant":
            for call in message.get("tool_calls") or []:
                try:
                    json.loads(call["function"]["arguments"])
                except ValueError:
                    return "tool call arguments must be JSON"
                open_calls.add(call["id"])
            if not message.get("tool_calls") and not message.get("content"):
                return "an assistant message needs content or tool_calls"
    return f"tool calls without an answer: {sorted(open_calls)}" if open_calls else None


async def _send(
    writer: asyncio.StreamWriter,
    status: int,
    kind: str,
    body: bytes | None,
    headers: dict[str, str] | None = None,
    pieces: Iterable[bytes] = (),
    pace_s: float = 0,
) -> None:
    """A whole body, or pieces of which each goes out on its own."""
    fields = {"Content-Type": kind, "Connection": "close", **(headers or {})}
    if body is not None:
        fields["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode() + (body or b""))
    for piece in pieces:
        # In two halves, so that an event, and a character of several bytes, arrives in parts.
        half = len(piece) // 2
        for part in (piece[:half], piece[half:]):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pace_s / 2)
    await writer.drain()


def _frame(request: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": request["model"]}


def _event(request: dict[str, Any], delta: dict[str, Any], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {**_frame(request, "chat.completion.chunk"), "choices": [choice]}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def _cut(text: str) -> list[str]:
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
