"""Requests to the API server: raw JSON, each with a time-out, and what goes wrong in words with the next step.

Only the transport of `kubernetes.aio` is used (kubeconfig, tokens and their renewal, TLS); its typed models and its
watchers are not, since a thousand Jobs are read three times faster raw, and its watchers do not survive faults.
"""

from __future__ import annotations

import asyncio
import gc
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from yaml import YAMLError

from tools.engines.base import EngineRefused, EngineUnavailable
from tools.engines.kubernetes.waiting import clean

SECONDS = 15.0  # for one request
RENEW_SECONDS = 30.0  # between two readings of the credentials after a 401
LONGEST_RETRY_SECONDS = 60.0  # that a server may ask for
MERGE = "application/merge-patch+json"
CONNECTIONS = 32
AT_ONCE = 16  # requests; the others wait for their turn before their time begins to run


class Problem(Exception):
    """The API server's no: its HTTP status, the reason and message of its Status, the seconds that it asks to wait."""

    def __init__(self, code: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.retry_after = code, reason, message, retry_after


class Unreachable(Exception):
    """No answer: refused, cut, or too late."""


class Connection:
    """Opened at the first request. `kubeconfig` None: the service account of the pod that this runs in."""

    def __init__(self, kubeconfig: str | None) -> None:
        self._kubeconfig = kubeconfig
        self._api: Any = None
        self._opening = asyncio.Lock()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._renewed = float("-inf")

    async def aclose(self) -> None:
        api, self._api = self._api, None
        if api is not None:
            await api.close()

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        return _parsed(await self.text(path, **query))

    async def page(self, path: str, **query: Any) -> dict[str, Any]:
        """As `get`, before all who wait for their turn: what it tells makes most of them needless."""
        return _parsed(await self._ask("GET", path, query, turns=nullcontext()))

    async def text(self, path: str, **query: Any) -> bytes:
        return await self._ask("GET", path, query)

    async def post(self, path: str, body: Mapping[str, Any], **query: Any) -> dict[str, Any]:
        return dict(json.loads(await self._ask("POST", path, query, dict(body))))

    async def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A merge patch."""
        return dict(json.loads(await self._ask("PATCH", path, {}, dict(body), MERGE)))

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Any = None,
        kind: str = "",
        turns: AbstractAsyncContextManager[None] | None = None,
    ) -> bytes:
        for last in (False, True):
            sent = time.monotonic()
            try:
                async with turns or self._turns, self._sent(method, path, query, body, kind, SECONDS) as response:
                    return bytes(await response.read())
            except Problem as problem:
                if last or problem.code != 401 or not await self._renew(sent):
                    raise
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def stream(self, path: str, seconds: float, **query: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        """A response line by line, `seconds` at most in all."""
        async with self._sent("GET", path, query, None, "", seconds) as response:
            yield aiter(response.content)

    @asynccontextmanager
    async def _sent(
        self, method: str, path: str, query: Mapping[str, Any], body: Any, kind: str, seconds: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response, once it is a success; every fault of the way is `Unreachable`."""
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout(seconds):
                api = await self._opened()
                asked = await api.param_serialize(
                    method,
                    path,
                    query_params=list(query.items()),
                    header_params={"Accept": "application/json", **({"Content-Type": kind} if kind else {})},
                    body=body,
                    auth_settings=["BearerToken"],
                )
                async with asyncio.timeout(SECONDS):  # a stream, too, is answered at once, whatever it says then
                    answer = await api.call_api(*asked, _request_timeout=aiohttp.ClientTimeout(total=seconds))
                response = answer.response
                assert response is not None
                if response.status >= 300:
                    raise _problem(response, await response.read())
                yield response
        except (TimeoutError, aiohttp.ClientError, ssl.SSLError, OSError, ValueError) as error:
            raise Unreachable(clean(error) or type(error).__name__) from error
        finally:
            if response is not None:
                response.close() if not response.content.at_eof() else response.release()

    async def _opened(self) -> Any:
        async with self._opening:
            if self._api is None:
                made = client.Configuration()
                made.connection_pool_maxsize = CONNECTIONS
                await self._credentials(made)
                self._api = client.ApiClient(made)
            return self._api

    async def _credentials(self, made: Any) -> None:
        where = self._kubeconfig or "this pod's service account"
        try:
            if self._kubeconfig is None:
                config.load_incluster_config(client_configuration=made)  # type: ignore[no-untyped-call]
            else:
                await config.load_kube_config(config_file=where, client_configuration=made)  # type: ignore[no-untyped-call]
        except (config.ConfigException, OSError, KeyError, TypeError, ValueError, YAMLError) as error:
            raise EngineUnavailable(
                f"The cluster's address and credentials cannot be read from {where} ({clean(error)}). "
                "Set KUBECONFIG to a kubeconfig file."
            ) from error

    async def _renew(self, sent: float) -> bool:
        """Read the credentials again: a token may have been renewed. False if that was just tried, before `sent`."""
        async with self._opening:
            if self._renewed >= sent:
                return True  # another request did, while this one was under way
            if self._api is None or time.monotonic() - self._renewed < RENEW_SECONDS:
                return False
            self._renewed = time.monotonic()
            await self._credentials(self._api.configuration)
            return True


def _parsed(text: bytes) -> dict[str, Any]:
    """A page of a long list is a hundred thousand small objects, none of them garbage: to look for it takes longer."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return dict(json.loads(text))
    finally:
        if collecting:
            gc.enable()


def _problem(response: aiohttp.ClientResponse, body: bytes) -> Problem:
    asked = response.headers.get("Retry-After", "")
    wait = min(float(asked), LONGEST_RETRY_SECONDS) if asked.isdecimal() else 0.0
    try:
        status = json.loads(body)
        return Problem(response.status, str(status.get("reason") or ""), str(status.get("message") or ""), wait)
    except (ValueError, AttributeError):  # a proxy's page
        return Problem(response.status, "", body[:200].decode("utf-8", "replace"), wait)


_NO = (400, 403, 422)  # a policy says 422 and a webhook 400, unless they were told to say otherwise
# Which refusals are final: HTTP status, a part of the message, and what to say. The first that fits counts.
_REFUSED: tuple[tuple[int, str, str], ...] = (
    (422, "metadata.uid", "The job {name} is not the one that was created; it was left alone."),
    (403, "violates PodSecurity", "The namespace's Pod Security refuses the Job ({said})."),
    *((code, "ValidatingAdmissionPolicy", "The cluster's admission policy refuses the Job ({said}).") for code in _NO),
    *((code, "admission webhook", "An admission webhook of the cluster refuses the Job ({said}).") for code in _NO),
    (400, "", "The API server does not understand the Job ({said}). The cluster may be older than 1.30."),
    (422, "", "The API server refuses the Job ({said})."),
    (405, "", "The API server does not allow that ({said})."),
    (413, "", "The Job is too large for the API server ({said})."),
)
# Those that somebody mends: the caller tries again.
_UNAVAILABLE: tuple[tuple[int, str, str], ...] = (
    (401, "", "The cluster does not accept Signalbox's credentials. Renew them, or set KUBECONFIG."),
    (403, "exceeded quota", "The namespace's quota has no room for another Job now ({said}); it is tried again."),
    (403, "", "Signalbox may not do that in the cluster ({said}). Apply infra/k8s/base/training/role.yaml."),
    (404, "namespace", "The namespace is not there ({said}). Apply infra/k8s, or set SIGNALBOX_NAMESPACE."),
    (404, "", "The cluster does not have it ({said})."),
    (409, "", "The Job changed meanwhile; it is tried again."),
    (429, "", "The API server has too many requests; it is tried again."),
)


def translated(error: Problem | Unreachable, name: str = "") -> EngineRefused | EngineUnavailable:
    """The error in a sentence with the next step: refused for good, or unavailable for now."""
    if isinstance(error, Unreachable):
        return EngineUnavailable(f"The cluster's API server does not answer ({error}); it is tried again.")
    said = clean(error.message) or f"HTTP {error.code}"
    for table, kind in ((_REFUSED, EngineRefused), (_UNAVAILABLE, EngineUnavailable)):
        for code, part, words in table:
            if code == error.code and part in error.message:
                return kind(words.format(name=name, said=said))
    return EngineUnavailable(f"The cluster's API server failed (HTTP {error.code}: {said}); it is tried again.")
