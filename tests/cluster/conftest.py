"""A namespace of each test's own in the cluster that KUBECONFIG names, and the bot's account in it.

The account gets exactly the Role of infra/k8s, and the namespace Pod Security "restricted"; what the tests set
up and clear away is done with KUBECONFIG's own rights. Where those do not reach to make a namespace, name one in
SIGNALBOX_TEST_NAMESPACE: it is used as it is, with KUBECONFIG's account, and nothing but the tests' own Jobs is deleted
in it (where that is not allowed they go by their time to live).
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from kubernetes.aio import client, config

from bot.settings import SOURCE
from tools.engines.kubernetes.manifest import SELECTOR

TRAINING = SOURCE / "infra" / "k8s" / "base" / "training"
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
MARK = secrets.token_hex(3)  # ends every name of this run, so that two runs never meet
TOKEN_SECONDS = 3600
REQUEST_SECONDS = 30.0
RIGHTS_SECONDS = 60.0  # until every API server knows of a Role
GONE_SECONDS = 120.0  # until a deleted namespace is gone


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the tests work: `kubeconfig` is the bot's, `admin` (None where the namespace was given) the tests' own."""

    namespace: str
    kubeconfig: str
    image: str
    admin: client.ApiClient | None


@pytest.fixture
async def place(tmp_path: Path, deleted: list[str]) -> AsyncIterator[Place]:
    image = os.environ.get("SIGNALBOX_TEST_IMAGE") or pytest.skip("SIGNALBOX_TEST_IMAGE: name an image with /bin/sh")
    kubeconfig = _kubeconfig()
    given = os.environ.get("SIGNALBOX_TEST_NAMESPACE")
    async with await config.new_client_from_config(kubeconfig) as admin:
        if given:
            yield Place(namespace=given, kubeconfig=kubeconfig, image=image, admin=None)
            with suppress(client.ApiException):
                await _delete_jobs(admin, given)
            return
        namespace = f"signalbox-test-{MARK}-{secrets.token_hex(2)}"
        await _namespace(admin, namespace)
        try:
            own = tmp_path / "kubeconfig"
            own.write_text(_as(kubeconfig, await _account(admin, namespace), namespace), encoding="utf-8")
            own.chmod(0o600)
            await _may(str(own), namespace)
            yield Place(namespace=namespace, kubeconfig=str(own), image=image, admin=admin)
        finally:
            await client.CoreV1Api(admin).delete_namespace(namespace, _request_timeout=REQUEST_SECONDS)
            deleted.append(namespace)


@pytest.fixture(scope="session")
def deleted() -> Iterator[list[str]]:
    """The namespaces that were deleted; at the end of all tests it is waited until they are gone."""
    names: list[str] = []
    yield names
    if left := asyncio.run(_left(names)) if names else []:
        warnings.warn(f"These namespaces were deleted and may still be there: {', '.join(left)}", stacklevel=1)


async def _left(names: list[str]) -> list[str]:
    """Those of them that do not go in time."""
    deadline = time.monotonic() + GONE_SECONDS
    async with await config.new_client_from_config(_kubeconfig()) as admin:
        while names and time.monotonic() < deadline:
            try:
                await client.CoreV1Api(admin).read_namespace(names[0], _request_timeout=REQUEST_SECONDS)
                await asyncio.sleep(1)
            except client.ApiException as error:
                if error.status != 404:
                    return names  # it may not be known
                names = names[1:]
    return names


def _kubeconfig() -> str:
    named = Path(os.environ.get("KUBECONFIG", "")).expanduser()
    if not named.is_file():
        pytest.skip("KUBECONFIG: name one kubeconfig file; these tests need a cluster")
    return str(named.absolute())


async def _namespace(admin: client.ApiClient, name: str) -> None:
    labels = RESTRICTED | {"app.kubernetes.io/managed-by": "signalbox-tests"}
    body: Any = {"metadata": {"name": name, "labels": labels}}
    try:
        await client.CoreV1Api(admin).create_namespace(body, _request_timeout=REQUEST_SECONDS)
        return
    except client.ApiException as error:
        if error.status not in (401, 403):
            raise
        what = "is not accepted" if error.status == 401 else "may not make a namespace"
        why = (
            f"KUBECONFIG's account {what}. Name one that it may work in (as infra/k8s has it) in "
            "SIGNALBOX_TEST_NAMESPACE, or use an administrator's kubeconfig."
        )
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        why = f"The cluster of KUBECONFIG does not answer ({error or type(error).__name__})."
    pytest.fail(why, pytrace=False)


async def _account(admin: client.ApiClient, namespace: str) -> str:
    """infra/k8s's accounts, Role and RoleBinding, moved to this namespace; answers the bot's token."""
    core, rights = client.CoreV1Api(admin), client.RbacAuthorizationV1Api(admin)
    bot: Any = {"metadata": {"name": "signalbox-bot"}}
    await core.create_namespaced_service_account(namespace, bot)
    for name in ("serviceaccount.yaml", "role.yaml"):
        for document in yaml.safe_load_all((TRAINING / name).read_text(encoding="utf-8")):
            document["metadata"]["namespace"] = namespace
            for subject in document.get("subjects", ()):
                subject["namespace"] = namespace
            match document["kind"]:
                case "ServiceAccount":
                    await core.create_namespaced_service_account(namespace, document)
                case "Role":
                    await rights.create_namespaced_role(namespace, document)
                case "RoleBinding":
                    await rights.create_namespaced_role_binding(namespace, document)
    asked: Any = {"spec": {"expirationSeconds": TOKEN_SECONDS}}
    made = await core.create_namespaced_service_account_token("signalbox-bot", namespace, asked)
    return str(made.status.token)


async def _may(kubeconfig: str, namespace: str) -> None:
    """Wait until the API server knows of the account's rights: it hears of a new Role a moment later."""
    deadline = time.monotonic() + RIGHTS_SECONDS
    async with await config.new_client_from_config(kubeconfig) as own:
        while True:
            try:
                await client.BatchV1Api(own).list_namespaced_job(namespace, _request_timeout=REQUEST_SECONDS)
                return
            except client.ApiException as error:
                if error.status not in (401, 403) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.2)


async def _delete_jobs(admin: client.ApiClient, namespace: str) -> None:
    batch = client.BatchV1Api(admin)
    for job in (await batch.list_namespaced_job(namespace, label_selector=SELECTOR)).items:
        if job.metadata.name.endswith(f"-{MARK}"):
            await batch.delete_namespaced_job(job.metadata.name, namespace, propagation_policy="Background")


def _as(kubeconfig: str, token: str, namespace: str) -> str:
    """The same cluster as another account."""
    given = yaml.safe_load(Path(kubeconfig).read_text(encoding="utf-8"))
    context = next(one["context"] for one in given["contexts"] if one["name"] == given["current-context"])
    cluster = next(one["cluster"] for one in given["clusters"] if one["name"] == context["cluster"])
    authority = cluster.pop("certificate-authority", None)
    if authority and "certificate-authority-data" not in cluster:
        read = (Path(kubeconfig).parent / authority).read_bytes()
        cluster["certificate-authority-data"] = base64.b64encode(read).decode()
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "tests", "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests", "namespace": namespace}}],
        }
    )
