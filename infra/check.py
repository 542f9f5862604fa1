"""Judges infra/ and the Jobs that the bot would create by other people's rules: `make infra`.

Each overlay is built by `kubectl kustomize`; Jobs are rendered by the Kubernetes engine. All of it goes to build/infra,
then through `kubernetes-validate --strict` (Kubernetes' own schemas; it has none of Kueue's) and `checkov` (good
practice). What checkov minds and we mean is waived with a reason: beside the object in an annotation, for Jobs here.
Terraform's format and validity too, where it is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from tools.engines.base import Submission
from tools.engines.kubernetes.manifest import ClusterSettings, complete, render
from tools.spec import CATALOGUE, TrainingSpec

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "build" / "infra"
WAIVED_IN_JOBS = {
    "CKV2_K8S_6": "The namespace's NetworkPolicies stand in infra/k8s/base/training/network.yaml, not beside each Job.",
    "CKV_K8S_15": "An image named by digest is the same wherever it is; a node that has it need not ask the registry.",
}
TRAINER = f"ghcr.io/your-team/signalbox-trainer@sha256:{'0' * 64}"  # in production by digest


def jobs() -> dict[str, dict[str, Any]]:
    """One Job of each kind, as it would be created: on cores, on a GPU with a claim and a queue, a language model."""
    plain = ClusterSettings(image_cpu=TRAINER, image_gpu=TRAINER, tracking_uri="http://mlflow.signalbox:5000")
    full = replace(plain, data_claim="data", output_claim="checkpoints", queue="training", gpu_product="NVIDIA-L4")
    asked: dict[str, tuple[TrainingSpec, ClusterSettings]] = {
        "digits-cpu": (CATALOGUE["digits"](), plain),
        "mnist-gpu": (CATALOGUE["mnist"](gpus=1), full),
        "distilgpt2-gpu": (CATALOGUE["distilgpt2"](gpus=1), plain),
    }
    return {name: _created(name, spec, settings) for name, (spec, settings) in asked.items()}


def _created(name: str, spec: TrainingSpec, settings: ClusterSettings) -> dict[str, Any]:
    job = render(spec, settings)
    identity = {"name": f"signalbox-{name}", "proposal_id": name, "digest": "0" * 64, "run_id": "1" * 32}
    return complete(Submission(manifest={"job": job}, tracking_uri=settings.tracking_uri, **identity))


def main() -> int:
    """0 if nobody minds anything."""
    if shutil.which("kubectl") is None:
        print(
            "kubectl is not installed; `make infra` builds the overlays with it: https://kubernetes.io/docs/tasks/tools/"
        )
        return 2
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    overlays = [HERE / "k8s" / "base", *sorted(one.parent for one in HERE.glob("k8s/overlays/*/kustomization.yaml"))]
    for place in overlays:
        built = subprocess.run(["kubectl", "kustomize", str(place)], check=True, capture_output=True, text=True)
        (OUT / f"{place.name}.yaml").write_text(built.stdout, encoding="utf-8")
    for name, job in jobs().items():
        (OUT / f"job-{name}.yaml").write_text(yaml.safe_dump(job, sort_keys=False), encoding="utf-8")
    rendered, rest = sorted(OUT.glob("job-*.yaml")), sorted(set(OUT.glob("*.yaml")) - set(OUT.glob("job-*.yaml")))
    judged = [
        _judge("kubernetes-validate", "--strict", "--quiet", "--no-warn", *map(str, [*rest, *rendered])),
        _judge(*_CHECKOV, "--file", *map(str, rest)),
        _judge(*_CHECKOV, "--skip-check", ",".join(WAIVED_IN_JOBS), "--file", *map(str, rendered)),
    ]
    for check, reason in WAIVED_IN_JOBS.items():
        print(f"waived in Jobs: {check}: {reason}")
    return int(not all([*judged, *_terraform()]))


_CHECKOV = ("checkov", "--quiet", "--compact", "--skip-download", "--framework", "kubernetes")


def _terraform() -> list[bool]:
    if shutil.which("terraform") is None:
        print("terraform is not installed; its files were not looked at.")
        return []
    inner = HERE / "terraform" / "manifests"  # needs no provider, so no registry of Terraform's
    data = {"TF_DATA_DIR": str(OUT / "terraform")}
    return [
        _judge("terraform", "fmt", "-check", "-recursive", str(HERE / "terraform")),
        _judge("terraform", f"-chdir={inner}", "init", "-backend=false", "-input=false", more=data),
        _judge("terraform", f"-chdir={inner}", "validate", more=data),
    ]


def _judge(program: str, *arguments: str, more: dict[str, str] | None = None) -> bool:
    own = Path(sys.argv[1], program) if len(sys.argv) > 1 else Path(program)
    command = str(own) if own.exists() else program
    ended = subprocess.run([command, *arguments], capture_output=True, text=True, env={**os.environ, **(more or {})})
    print(f"{'ok   ' if ended.returncode == 0 else 'wrong'} {program} {' '.join(arguments)[:60]}")
    said = (ended.stdout + (ended.stderr if ended.returncode else "")).strip()
    print("".join(f"      {line}\n" for line in said.splitlines()[-40:] if line), end="")
    return ended.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
