"""What the record says of the machine: facts as tags, its load as MLflow's system metrics.

Used by the process that writes the record, never by the one that trains, and importable without torch. Names are those
of MLflow, so that its pages show them where people look: `system/cpu_utilization_percentage` and the like.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "transformers", "datasets", "peft", "numpy", "mlflow-skinny")
SAMPLE_SECONDS = 10.0  # between two samples, as MLflow has it
ROOT = Path(__file__).parents[1]
GIT_SECONDS = 5.0  # for git to answer; it reads one file


def facts() -> dict[str, str]:
    """Environment and git facts as tags; what cannot be found out is left out."""
    found = {
        "hostname": platform.node(),
        "platform": platform.platform(),
        "python_version": platform.python_version(),
        "cpu": _cpu(),
        "cpus": str(os.cpu_count()),
        "packages": " ".join(f"{name}=={number}" for name in PACKAGES if (number := package_version(name))),
        "mlflow.source.git.commit": _commit(),
        **_gpu(),
    }
    return {name: value for name, value in found.items() if value}


def package_version(name: str) -> str:
    """The installed version, or nothing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _commit() -> str:
    """The commit that an image was built from, as its build has set it, or that of the working copy."""
    given = os.environ.get("SIGNALBOX_GIT_COMMIT", "")
    if given:
        return given
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _gpu() -> dict[str, str]:
    """The first GPU, its driver and the CUDA that the driver knows, where there is one."""
    try:
        import pynvml  # type: ignore[import-untyped]

        pynvml.nvmlInit()
        number = pynvml.nvmlSystemGetCudaDriverVersion()
        gpu, driver = (
            pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0)),
            pynvml.nvmlSystemGetDriverVersion(),
        )
    except Exception:  # no module, no library, no GPU: NVML has an error class for each
        return {}
    return {"gpu": str(gpu), "gpu_driver": str(driver), "cuda": f"{number // 1000}.{number % 1000 // 10}"}


class Load:
    """The machine's load, sampled by MLflow's own monitors now and then: CPU, memory, disk, network, GPUs by NVML."""

    def __init__(self) -> None:
        """MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false turns it off."""
        self._on = os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() not in ("false", "0")
        self._interval = float(os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL") or SAMPLE_SECONDS)
        self._monitors: list[Any] | None = None
        self._step, self._next = 0, 0.0

    def records(self) -> list[dict[str, Any]]:
        """The metrics of a sample as records, if one is due. Imports MLflow."""
        if not self._on or time.monotonic() < self._next:
            return []
        self._next = time.monotonic() + self._interval
        if self._monitors is None:
            self._monitors = _monitors()
        now, step = int(time.time() * 1000), self._step
        self._step += 1
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return [
            {"kind": "metric", "name": f"system/{name}", "value": float(value), "step": step, "timestamp": now}
            for name, value in values.items()
        ]


def _monitors() -> list[Any]:
    import psutil  # type: ignore[import-untyped]
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    psutil.cpu_percent(0.1)  # the first answer has nothing to compare with
    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(ImportError, RuntimeError):  # no NVML, or no GPU
        monitors.append(GPUMonitor())
    return monitors
