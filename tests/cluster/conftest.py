"""A namespace of the tests' own in the cluster that KUBECONFIG names, and the bot's account in it.

The account gets exactly the Role of infra/k8s, and the namespace Pod Security "restricted"; what the tests set
up and clear away is done with KUBECONFIG's own rights. Where those do not reach to make a namespace, name one in
SIGNALBOX_TEST_NAMESPACE: it is used as it is, with KUBECONFIG's account, and nothing in it is deleted.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio import client, config

from bot.settings import SOURCE

TRAINING = SOURCE / "infra" / "k8s" / "base" / "training"
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
TOKEN_SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the tests work: `kubeconfig` is the bot's, `admin` (None where the namespace was given) the tests' own."""

    namespace: str
    kubeconfig: str
    image: str
    admin: client.ApiClient | None


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    kubeconfig = os.environ.get("KUBECONFIG", "")
    if not Path(kubeconfig).is_file():
        pytest.skip("KUBECONFIG names no file; these tests need a cluster")
    image = os.environ.get("SIGNALBOX_TEST_IMAGE") or pytest.skip("SIGNALBOX_TEST_IMAGE: name an image with /bin/sh")
    given = os.environ.get("SIGNALBOX_TEST_NAMESPACE")
    if given:
        yield Place(namespace=given, kubeconfig=kubeconfig, image=image, admin=None)
        return
    namespace = f"signalbox-test-{secrets.token_hex(3)}"
    async with await config.new_client_from_config(kubeconfig) as admin:
        core = client.CoreV1Api(admin)
        labels = RESTRICTED | {"app.kubernetes.io/managed-by": "signalbox-tests"}
        await core.create_namespace({"metadata": {"name": namespace, "labels": labels}})
        try:
            token = await _account(admin, namespace)
            own = tmp_path / "kubeconfig"
            own.write_text(_as(kubeconfig, token, namespace), encoding="utf-8")
            own.chmod(0o600)
            yield Place(namespace=namespace, kubeconfig=str(own), image=image, admin=admin)
        finally:
            await core.delete_namespace(namespace)


async def _account(admin: client.ApiClient, namespace: str) -> str:
    """infra/k8s's accounts, Role and RoleBinding, moved to this namespace; answers the bot's token."""
    core, rights = client.CoreV1Api(admin), client.RbacAuthorizationV1Api(admin)
    await core.create_namespaced_service_account(namespace, {"metadata": {"name": "signalbox-bot"}})
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


def _as(kubeconfig: str, token: str, namespace: str) -> str:
    """The same cluster as another account."""
    given = yaml.safe_load(Path(kubeconfig).read_text(encoding="utf-8"))
    context = next(one["context"] for one in given["contexts"] if one["name"] == given["current-context"])
    cluster = next(one["cluster"] for one in given["clusters"] if one["name"] == context["cluster"])
    authority = cluster.pop("certificate-authority", None)
    if authority:
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
