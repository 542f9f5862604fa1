"""Every setting is listed with its comment, its default is pinned, and a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.core.errors import Misconfigured
from bot.settings import SOURCE, Settings, load

DEFAULTS = {
    "OPENAI_API_KEY": None,
    "OPENAI_BASE_URL": None,
    "OPENAI_MODEL": "gpt-5-mini",
    "MLFLOW_TRACKING_URI": None,
    "DATABASE_URL": None,
    "SLACK_BOT_TOKEN": None,
    "SLACK_APP_TOKEN": None,
    "SLACK_SIGNING_SECRET": None,
    "SLACK_API_URL": "https://slack.com/api/",
    "SIGNALBOX_SLACK_MODE": "socket",
    "SIGNALBOX_HTTP_HOST": "127.0.0.1",
    "SIGNALBOX_HTTP_PORT": "3000",
    "SIGNALBOX_DIGEST_CHANNEL": None,
    "SIGNALBOX_HOME": ".signalbox",
    "SIGNALBOX_POLICY_FILE": str(SOURCE / "bot" / "policy.yaml"),
    "SIGNALBOX_RATES_FILE": str(SOURCE / "tools" / "rates.yaml"),
    "SIGNALBOX_TIMEZONE": "UTC",
    "SIGNALBOX_DIGEST_HOUR": "9",
    "SIGNALBOX_CHAT_USER": "requester",
    "SIGNALBOX_MODEL_TIMEOUT_SECONDS": "60.0",
    "SIGNALBOX_ENGINE": "local",
    "KUBECONFIG": None,
    "SIGNALBOX_NAMESPACE": "ml-training",
    "SIGNALBOX_IMAGE_CPU": "signalbox-trainer:cpu",
    "SIGNALBOX_IMAGE_GPU": "signalbox-trainer:cuda",
    "SIGNALBOX_IMAGE_PULL_POLICY": "IfNotPresent",
    "SIGNALBOX_DATA_CLAIM": None,
    "SIGNALBOX_OUTPUT_CLAIM": None,
    "SIGNALBOX_QUEUE": None,
    "SIGNALBOX_RUNTIME": None,
    "SIGNALBOX_GPU_PRODUCT": None,
    "SIGNALBOX_CLUSTER_CPU_CORES": "4",
    "SIGNALBOX_CLUSTER_MEMORY_GIB": "8",
    "SIGNALBOX_CLUSTER_STORAGE_GIB": "10",
    "SIGNALBOX_CLUSTER_MAX_JOBS": "20",
    "SIGNALBOX_CLUSTER_KEEP_HOURS": "24",
    "SIGNALBOX_START_MINUTES": "30",
    "SIGNALBOX_TRAINER_PYTHON": str(SOURCE / ".venv-trainers" / "bin" / "python"),
    "SIGNALBOX_DATA_DIR": None,
    "SIGNALBOX_LOCAL_CPU_CORES": "4",
    "SIGNALBOX_LOCAL_GPUS": None,
    "SIGNALBOX_LOCAL_MAX_JOBS": "1",
    "SIGNALBOX_LOCAL_GRACE_SECONDS": "30",
}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No .env and no setting of the machine."""
    monkeypatch.chdir(tmp_path)
    for name in DEFAULTS:
        monkeypatch.delenv(name, raising=False)


def test_the_defaults_are_these() -> None:
    settings = load()
    found = {str(field.alias): getattr(settings, name) for name, field in Settings.model_fields.items()}
    assert {name: None if value is None else str(value) for name, value in found.items()} == DEFAULTS


def test_each_is_listed_with_a_comment() -> None:
    lines = (SOURCE / ".env.example").read_text(encoding="utf-8").splitlines()
    listed = {
        line[1:].partition("=")[0]: index for index, line in enumerate(lines) if line.startswith("#") and "=" in line
    }
    for name in DEFAULTS:
        assert name in listed, f"{name} is not in .env.example"
        assert lines[listed[name] - 1].startswith("# "), f"{name} has no comment"
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SIGNALBOX_TIMEZONE", "Mars/Base"),
        ("SIGNALBOX_DIGEST_HOUR", "25"),
        ("SIGNALBOX_LOCAL_MAX_JOBS", "0"),
        ("SIGNALBOX_ENGINE", "slurm"),
        ("SIGNALBOX_NAMESPACE", "ML_Training"),
        ("SIGNALBOX_CLUSTER_MEMORY_GIB", "0"),
    ],
)
def test_a_wrong_one_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Misconfigured, match=name):
        load()


def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-1234")
    assert "canary" not in repr(load())


def test_tools_is_ours() -> None:
    import tools

    assert Path(str(tools.__file__)).parent == SOURCE / "tools"
