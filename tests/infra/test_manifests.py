"""What infra/ promises: least rights, restricted pods, pinned images, settings that exist, variables that are used."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.kubernetes.admission import restricted
from tools.engines.kubernetes.runtimes import runtime_of

ROOT = Path(__file__).parents[2]
K8S = ROOT / "infra" / "k8s"
BASE = K8S / "base"
TERRAFORM = ROOT / "infra" / "terraform"
OVERLAYS = sorted(one.parent.name for one in K8S.glob("overlays/*/kustomization.yaml"))
# NVIDIA's plugin writes into the kubelet's own folder, which is root's.
AS_ROOT = {"nvidia-device-plugin"}


def _documents(file: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(file.read_text()) if one]


def _is_patch(file: Path) -> bool:
    kustomization = (
        _documents(file.parent / "kustomization.yaml") if (file.parent / "kustomization.yaml").exists() else []
    )
    return any(file.name == patch.get("path") for one in kustomization for patch in one.get("patches", []))


PLAIN = [file for file in sorted(K8S.rglob("*.yaml")) if file.name != "kustomization.yaml" and not _is_patch(file)]
OBJECTS = [one for file in PLAIN for one in _documents(file)]


def _only(kind: str, name: str, objects: list[dict[str, Any]] = OBJECTS) -> dict[str, Any]:
    (found,) = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def _pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in objects:
        if one["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "Job"}:
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["containers"], *pod.get("initContainers", [])]


# -- kustomize ------------------------------------------------------------------------------------------------------


def test_every_kustomization_names_files_that_exist_and_every_file_is_named() -> None:
    named = set()
    for file in K8S.rglob("kustomization.yaml"):
        (one,) = _documents(file)
        places = [*one.get("resources", []), *one.get("components", [])]
        places += [patch["path"] for patch in one.get("patches", []) if "path" in patch]
        for place in places:
            target = (file.parent / place).resolve()
            assert target.exists(), f"{file}: {place}"
            named.add(target / "kustomization.yaml" if target.is_dir() else target)
    ends = {(K8S / "overlays" / one / "kustomization.yaml").resolve() for one in OVERLAYS}
    ends.add((K8S / "components" / "hub" / "kustomization.yaml").resolve())  # for your own overlay
    assert {file.resolve() for file in K8S.rglob("*.yaml")} - ends == named


def test_no_object_is_there_twice() -> None:
    keys = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in OBJECTS]
    assert len(keys) == len(set(keys))


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("place", ["base", *(f"overlays/{one}" for one in OVERLAYS)])
def test_kustomize_builds_it(place: str) -> None:
    built = subprocess.run(["kubectl", "kustomize", str(K8S / place)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    objects = [one for one in yaml.safe_load_all(built.stdout) if one]
    for name, pod in _pods(objects):
        _must_be_safe(name, pod)
    queues = [one["metadata"]["name"] for one in objects if one["kind"] == "LocalQueue"]
    named = _only("ConfigMap", "signalbox-settings", objects)["data"].get("SIGNALBOX_QUEUE")
    assert [named] == (queues or [None]), "a queue that is made is the one that trainings wait in"
    bot = _only("Deployment", "signalbox-bot", objects)["spec"]
    if place in {"overlays/postgres", "overlays/production"}:
        assert bot["replicas"] == 2 and bot["strategy"]["type"] == "RollingUpdate"
        assert _only("PodDisruptionBudget", "signalbox-bot", objects)["spec"].get("maxUnavailable") is None
    else:
        assert bot["replicas"] == 1 and bot["strategy"] == {"type": "Recreate"}, "SQLite bears one"


# -- rights ---------------------------------------------------------------------------------------------------------

RIGHTS = {
    ("batch", "jobs"): "create get list watch patch",
    ("", "pods"): "get list watch",
    ("", "pods/log"): "get",
    ("", "events"): "list watch",
    ("", "resourcequotas"): "get list",
    ("", "persistentvolumeclaims"): "get",
    ("kueue.x-k8s.io", "workloads"): "get list watch",
    ("kueue.x-k8s.io", "localqueues"): "get list",
    ("visibility.kueue.x-k8s.io", "localqueues/pendingworkloads"): "get",
    ("trainer.kubeflow.org", "trainjobs"): "create get list watch patch",
}


def _granted(role: dict[str, Any]) -> dict[tuple[str, str], str]:
    granted = {}
    for rule in role["rules"]:
        assert set(rule) == {"apiGroups", "resources", "verbs"}
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                assert (group, resource) not in granted
                granted[group, resource] = " ".join(rule["verbs"])
    return granted


def test_exactly_the_rights_that_the_engine_uses() -> None:
    assert [one["metadata"]["name"] for one in OBJECTS if one["kind"] == "Role"] == ["signalbox-engine"]
    role = _only("Role", "signalbox-engine")
    assert role["metadata"]["namespace"] == "ml-training"
    assert _granted(role) == RIGHTS


def test_outside_the_jobs_namespace_it_reads_nodes_and_its_runtime_alone() -> None:
    roles = [one["metadata"]["name"] for one in OBJECTS if one["kind"] == "ClusterRole"]
    assert sorted(roles) == ["signalbox-node-labels", "signalbox-runtime"]
    (rule,) = _only("ClusterRole", "signalbox-runtime")["rules"]
    assert (rule["resources"], rule["resourceNames"], rule["verbs"]) == (
        ["clustertrainingruntimes"],
        ["signalbox-torch"],
        ["get"],
    )
    assert _granted(_only("ClusterRole", "signalbox-node-labels")) == {("", "nodes"): "get list"}


def test_only_the_bot_has_rights() -> None:
    bindings = [one for one in OBJECTS if one["kind"] in {"RoleBinding", "ClusterRoleBinding"}]
    assert len(bindings) == 3
    for one in bindings:
        assert one["subjects"] == [{"kind": "ServiceAccount", "name": "signalbox-bot", "namespace": "signalbox"}]


def test_no_account_and_no_pod_gets_a_token_unasked() -> None:
    for one in OBJECTS:
        if one["kind"] == "ServiceAccount":
            assert one["automountServiceAccountToken"] is False
    for name, pod in _pods(OBJECTS):
        assert pod["automountServiceAccountToken"] is False, name


def test_the_policies_speak_of_the_bot_and_bind() -> None:
    account = "system:serviceaccount:signalbox:signalbox-bot"
    policies = {one["metadata"]["name"]: one["spec"] for one in OBJECTS if one["kind"] == "ValidatingAdmissionPolicy"}
    bindings = [one["spec"] for one in OBJECTS if one["kind"] == "ValidatingAdmissionPolicyBinding"]
    assert {one["policyName"] for one in bindings} == set(policies)
    for binding in bindings:
        assert "Deny" in binding["validationActions"]
        if "paramKind" in policies[binding["policyName"]]:
            reference = binding["paramRef"]
            assert reference["parameterNotFoundAction"] == "Deny"
            params = _only("ConfigMap", reference["name"])
            assert params["metadata"]["namespace"] == reference["namespace"]
            used = re.findall(
                r"params\.data\['([^']+)'\]", yaml.safe_dump(policies[binding["policyName"]]).replace("''", "'")
            )
            assert used and set(used) <= set(params["data"])
    for spec in policies.values():
        assert spec["failurePolicy"] == "Fail"
        assert [one["expression"] for one in spec["matchConditions"]] == [f"request.userInfo.username == '{account}'"]
    written = {resource for (_, resource), verbs in RIGHTS.items() if "create" in verbs or "patch" in verbs}
    guarded = {
        r for spec in policies.values() for rule in spec["matchConstraints"]["resourceRules"] for r in rule["resources"]
    }
    assert guarded == written, "whatever it may write has a policy"


# -- pods -----------------------------------------------------------------------------------------------------------


def test_both_namespaces_are_restricted() -> None:
    spaces = [one for one in OBJECTS if one["kind"] == "Namespace"]
    assert {one["metadata"]["name"] for one in spaces} == {"signalbox", "ml-training"}
    for one in spaces:
        for mode in ("enforce", "audit", "warn"):
            assert one["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] == "restricted"


def _must_be_safe(name: str, pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
    assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False, name
    if name not in AS_ROOT:
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0, name
        assert not any("hostPath" in volume for volume in pod["volumes"]), name
    for one in _containers(pod):
        context = one["securityContext"]
        assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"] is True, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        for side in ("requests", "limits"):
            assert {"cpu", "memory", "ephemeral-storage"} <= set(one["resources"][side]), f"{name}: {side}"
        image = one["image"]
        tag = image.rpartition("/")[2].partition(":")[2]
        assert "@sha256:" in image or (tag and tag != "latest"), image


def test_every_container_is_safe_limited_and_pinned() -> None:
    pods = dict(_pods(OBJECTS))
    assert {"signalbox-bot", "mlflow", "postgres", "nvidia-device-plugin"} == set(pods)
    for name, pod in pods.items():
        _must_be_safe(name, pod)
    for name in ("signalbox-bot", "mlflow"):
        assert pods[name]["securityContext"]["runAsUser"] == 10001
        assert {"name": "tmp", "mountPath": "/tmp"} in pods[name]["containers"][0]["volumeMounts"]


def test_every_namespace_denies_by_default() -> None:
    policies = [one for one in OBJECTS if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "default-deny"]
    assert {one["metadata"]["namespace"] for one in policies} == {"signalbox", "ml-training"}
    for one in policies:
        assert one["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_jobs_namespace_holds_no_secret_and_is_bounded() -> None:
    quota = _only("ResourceQuota", "training")
    assert quota["metadata"]["namespace"] == "ml-training"
    assert quota["spec"]["hard"]["count/secrets"] == "0"
    assert "requests.nvidia.com/gpu" in quota["spec"]["hard"]
    (limits,) = _only("LimitRange", "training")["spec"]["limits"]
    for kind in ("defaultRequest", "default", "max"):
        assert {"cpu", "memory", "ephemeral-storage"} <= set(limits[kind])
    assert not [one for one in OBJECTS if one["kind"] == "Secret"], "you make the secrets, not git"


def test_every_waiver_has_a_reason() -> None:
    for one in OBJECTS:
        for key, text in one["metadata"].get("annotations", {}).items():
            if key.startswith("checkov.io/skip"):
                check, _, reason = text.partition("=")
                assert re.fullmatch(r"CKV2?_K8S_\d+", check) and len(reason) > 20, text


def test_the_runtime_s_pod_is_as_safe_and_fit_for_what_the_engine_asks() -> None:
    found = runtime_of(_only("ClusterTrainingRuntime", "signalbox-torch"), None)
    assert found.torchrun and found.grace_seconds == 60 and not found.claims
    (job,) = _only("ClusterTrainingRuntime", "signalbox-torch")["spec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    assert not restricted(pod), "the namespace's Pod Security would refuse its pods"
    assert pod["serviceAccountName"] == "signalbox-trainer" and pod["automountServiceAccountToken"] is False
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} == {
        *("/data", "/output", "/tmp", "/dev/shm"),
    }


# -- the bot and MLflow ---------------------------------------------------------------------------------------------


def _known_settings() -> dict[str, str]:
    return dict(re.findall(r"^#?([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.M))


def test_the_settings_are_those_of_the_bot() -> None:
    data = _only("ConfigMap", "signalbox-settings")["data"]
    assert set(data) <= set(_known_settings())
    assert not [name for name in data if re.search("TOKEN|SECRET|KEY|DATABASE_URL", name)], "secrets are in the Secret"
    assert data["SIGNALBOX_HTTP_HOST"] == "0.0.0.0"
    pod = _only("Deployment", "signalbox-bot")["spec"]["template"]["spec"]
    (bot,) = pod["containers"]
    assert [one["containerPort"] for one in bot["ports"]] == [int(data["SIGNALBOX_HTTP_PORT"])]
    assert bot["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert bot["readinessProbe"]["httpGet"]["path"] == "/readyz"
    mounts = {one["mountPath"]: one["name"] for one in bot["volumeMounts"]}
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert mounts[data["SIGNALBOX_HOME"]] == "home"
    for name in ("SIGNALBOX_POLICY_FILE", "SIGNALBOX_RATES_FILE"):
        folder, _, file = data[name].rpartition("/")
        assert file in _only("ConfigMap", volumes[mounts[folder]]["configMap"]["name"])["data"]


def test_the_environment_beside_the_settings() -> None:
    (bot,) = _only("Deployment", "signalbox-bot")["spec"]["template"]["spec"]["containers"]
    others = {one["name"] for one in bot["env"]}
    assert others == {"HOME", "MPLCONFIGDIR", "PYTHONDONTWRITEBYTECODE"}, "what Python and matplotlib want, no setting"
    assert {"configMapRef": {"name": "signalbox-settings"}} in bot["envFrom"]


def test_the_rates_are_those_of_the_tools() -> None:
    rates = yaml.safe_load(_only("ConfigMap", "training-cost-rates")["data"]["rates.yaml"])
    assert rates == yaml.safe_load((ROOT / "tools" / "rates.yaml").read_text())


def test_the_policy_is_the_bot_s_with_nobody_in_it() -> None:
    policy = yaml.safe_load(_only("ConfigMap", "signalbox-policy")["data"]["policy.yaml"])
    usual = yaml.safe_load((ROOT / "bot" / "policy.yaml").read_text())
    assert policy == {**usual, "approvers": []}


def test_mlflow_answers_to_the_service_s_names_and_no_other() -> None:
    service = _only("Service", "mlflow")
    name, space = service["metadata"]["name"], service["metadata"]["namespace"]
    (port,) = [one["port"] for one in service["spec"]["ports"]]
    (server,) = _only("Deployment", "mlflow")["spec"]["template"]["spec"]["containers"]
    options = dict(one.removeprefix("--").partition("=")[::2] for one in server["args"])
    hosts = {f"{name}{rest}:{port}" for rest in ("", f".{space}", f".{space}.svc", f".{space}.svc.cluster.local")}
    assert set(options["allowed-hosts"].split(",")) == hosts | {f"localhost:{port}"}
    assert options["port"] == str(port) and options["host"] == "0.0.0.0" and options["workers"] == "2"
    assert not [one for one in options if "gunicorn" in one], "its security flags need uvicorn"
    assert "serve-artifacts" in options and options["artifacts-destination"].startswith("/mlflow/")
    assert server["resources"]["requests"]["memory"] == "1Gi" and server["resources"]["limits"]["memory"] == "2Gi"
    uri = _only("ConfigMap", "signalbox-settings")["data"]["MLFLOW_TRACKING_URI"]
    assert uri.removeprefix("http://") in hosts


# -- Terraform ------------------------------------------------------------------------------------------------------


def _modules() -> list[Path]:
    return sorted({file.parent for file in TERRAFORM.rglob("*.tf")})


@pytest.mark.parametrize("module", _modules(), ids=lambda path: path.name)
def test_every_variable_is_used_and_every_used_one_declared(module: Path) -> None:
    text = "\n".join(file.read_text() for file in sorted(module.glob("*.tf")))
    declared = set(re.findall(r'^variable "([a-z_]+)"', text, re.M))
    assert declared == set(re.findall(r"\bvar\.([a-z_]+)", text))
    assert len(re.findall(r"^  description +=", text, re.M)) >= len(declared)


def test_the_module_gets_every_variable() -> None:
    inner = set(re.findall(r'^variable "([a-z_]+)"', (TERRAFORM / "manifests" / "variables.tf").read_text(), re.M))
    outer = (TERRAFORM / "main.tf").read_text()
    assert inner == set(re.findall(r"^  ([a-z_]+) += var\.\1$", outer, re.M))


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
def test_terraform_is_formatted_and_its_own_tests_pass(tmp_path: Path) -> None:
    copied = tmp_path / "infra"
    shutil.copytree(ROOT / "infra", copied)
    module = copied / "terraform" / "manifests"
    for command in (
        ["terraform", f"-chdir={copied / 'terraform'}", "fmt", "-check", "-recursive", "-diff"],
        ["terraform", f"-chdir={module}", "init", "-backend=false", "-input=false", "-no-color"],
        ["terraform", f"-chdir={module}", "validate", "-no-color"],
        ["terraform", f"-chdir={module}", "test", "-no-color"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
