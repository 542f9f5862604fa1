"""What the Dockerfiles promise, read without an engine. `make test-images` builds and runs what they describe."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.images.dockerfile import IMAGES, NAMES, ROOT, context, expanded, ignored, read
from tools.engines.kubernetes import manifest
from tools.spec import CATALOGUE

sys.path.insert(0, str(IMAGES))
import trim

LOCK = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
LOCKED = {one["name"]: one for one in LOCK}
FILES = {name: read(name) for name in NAMES}
TRAINERS = NAMES[1:]


def _env(name: str) -> dict[str, str]:
    return {key: value for step in FILES[name].last.all("ENV") for key, value in step.pairs().items()}


def test_every_dockerfile_is_looked_at() -> None:
    assert {file.name for file in IMAGES.glob("*Dockerfile*")} == {f"{name}.Dockerfile" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_base_is_one_for_all_and_named_by_digest(name: str) -> None:
    assert FILES[name].arguments == FILES["bot"].arguments
    assert re.fullmatch(
        r"docker\.io/library/python:3\.11-slim-\w+@sha256:[0-9a-f]{64}", FILES[name].arguments["PYTHON"]
    )
    assert {stage.base for stage in FILES[name].stages} == {"${PYTHON}"}


@pytest.mark.parametrize("name", NAMES)
def test_the_last_stage_builds_nothing_and_ends_as_the_clusters_user(name: str) -> None:
    last = FILES[name].last
    assert [step.rest for step in last.all("USER")] == [f"{manifest.USER}:{manifest.USER}"]
    (bot,) = yaml.safe_load_all((ROOT / "infra/k8s/base/bot/deployment.yaml").read_text())
    assert bot["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == manifest.USER
    after = last.steps[[step.kind for step in last.steps].index("USER") :]
    assert not {step.kind for step in after} & {"RUN", "COPY"}
    assert not [step for step in last.all("RUN") if re.search(r"\b(uv|pip|apt-get)\b", step.rest)]
    assert [step.rest for step in last.all("STOPSIGNAL")] == ["SIGTERM"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_copied_is_there_and_sent(name: str) -> None:
    sent = context()
    for stage in FILES[name].stages:
        given = dict(step.rest.partition("=")[::2] for step in stage.all("ARG"))
        for step in stage.all("COPY"):
            if "from" in dict(step.flags):
                assert dict(step.flags)["from"] in {one.name for one in FILES[name].stages}
                continue
            for source in expanded(step.rest, given).split()[:-1]:
                assert [path for path in sent if path == source or path.startswith(f"{source}/")], source


def test_nothing_is_sent_that_is_secret_or_not_needed() -> None:
    assert {path.split("/")[0] for path in context()} == {
        *("bot", "tools", "trainers", "images", "pyproject.toml", "uv.lock", "LICENSE")
    }
    for path in (".env", "bot/.env", ".git/config", ".signalbox/signalbox.db", ".venv/bin/python", "tests/world.py"):
        assert ignored(path), path
    assert ignored("secrets.env") and ignored("bot/__pycache__/cards.cpython-311.pyc")
    assert not ignored("bot/cards.py")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_written_beside_tmp(name: str) -> None:
    env = _env(name)
    for key in ("HOME", "TMPDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME"):
        assert env[key] == "/tmp" or env[key].startswith("/tmp/"), key
    assert env["PYTHONDONTWRITEBYTECODE"] == "1" and env["PATH"].startswith("/opt/venv/bin:")
    warm = [step.rest for step in FILES[name].last.all("RUN") if "warm.py" in step.rest]
    assert warm == [f"python -B /mnt/warm.py {'bot' if name == 'bot' else 'trainers'}"]


@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_has_the_surroundings_that_jobs_give_it(name: str) -> None:
    pod = manifest.render(CATALOGUE["digits"](), manifest.ClusterSettings())["spec"]["template"]["spec"]
    given = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
    of_its_own = {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES"}
    assert {key: _env(name)[key] for key in given if key not in of_its_own} == {
        key: value for key, value in given.items() if key not in of_its_own
    }
    folders = " ".join(step.rest for step in FILES[name].last.all("RUN"))
    assert "/data" in folders and "/output" in folders


def test_the_commands_are_programs_of_ours() -> None:
    (bot,) = yaml.safe_load_all((ROOT / "infra/k8s/base/bot/deployment.yaml").read_text())
    command = [yaml.safe_load(step.rest) for step in FILES["bot"].last.all("CMD")]
    assert command == [bot["spec"]["template"]["spec"]["containers"][0]["command"]]
    for name in TRAINERS:
        (step,) = FILES[name].last.all("CMD")
        python, dash, module, *_ = yaml.safe_load(step.rest)
        assert (python, dash) == ("python", "-m") and importlib.util.find_spec(module)
    assert {recipe.module for recipe in CATALOGUE.values()} <= {
        f"trainers.{file.stem}" for file in (ROOT / "trainers").glob("*.py")
    }


@pytest.mark.parametrize("name", NAMES)
def test_labels_say_what_it_is_and_where_from(name: str) -> None:
    labels = {key: value for step in FILES[name].last.all("LABEL") for key, value in step.pairs().items()}
    told = {"title", "description", "licenses", "version", "revision", "source", "base.name"}
    assert set(labels) == {f"org.opencontainers.image.{one}" for one in told}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"VERSION={version}" in [step.rest for step in FILES[name].last.all("ARG")]


@pytest.mark.parametrize("name", NAMES)
def test_packages_come_from_the_lock(name: str) -> None:
    script = " ".join(step.rest for stage in FILES[name].stages for step in stage.all("RUN"))
    assert script.count("uv sync --frozen ") == 1 and "--require-hashes -r images/uv.txt" in script
    assert f"--extra {'bot' if name == 'bot' else 'trainers'}" in script
    assert ("uv pip install" in script) == (name == "trainer-cpu")


def test_uv_is_the_makefiles() -> None:
    wanted = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.M)
    pinned = (IMAGES / "uv.txt").read_text()
    assert wanted and f"uv=={wanted[1]} " in pinned and "--hash=sha256:" in pinned


def test_pytorch_for_cpu_is_of_the_locked_versions() -> None:
    lines = [line for line in (IMAGES / "torch-cpu.txt").read_text().splitlines() if line[:1] not in {"#", " "}]
    found = [line.removesuffix("\\").strip() for line in lines]
    assert found == [f"{one}=={LOCKED[one]['version']}+cpu" for one in ("torch", "torchvision")]


def _reached(start: str, without: frozenset[str] = frozenset()) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in seen and name not in without:
            seen.add(name)
            for one in LOCK:
                if one["name"] == name:
                    extras = [each for group in one.get("optional-dependencies", {}).values() for each in group]
                    inner = [*one.get("dependencies", []), *(extras if name == "cuda-toolkit" else [])]
                    waiting += [each["name"] for each in inner]
    return seen


def test_the_cpu_image_leaves_out_all_that_is_cudas_and_nothing_else() -> None:
    listed = set((IMAGES / "gpu-packages.txt").read_text().split())
    assert listed == {one for one in _reached("torch") if one.startswith(("nvidia-", "cuda-")) or one == "triton"}


def test_the_bot_has_no_pytorch_and_trainers_no_agent() -> None:
    project = LOCKED["signalbox"]["optional-dependencies"]
    bot = set().union(*(_reached(one["name"]) for one in project["bot"]))
    trainers = set().union(*(_reached(one["name"]) for one in project["trainers"]))
    assert not {"torch", "transformers", "scikit-learn"} & bot
    assert not {one for one in trainers if one.startswith(("langchain", "langgraph", "openai", "slack", "kubernetes"))}


def test_trimming_leaves_what_is_imported() -> None:
    for path in ("torch/__init__.py", "numpy/_core/tests/_natype.py", "kubernetes/aio/client/api_client.py"):
        assert not trim.trimmed(path), path
    for path in ("kubernetes/client/models/v1_pod.py", "scipy/linalg/tests/test_basic.py", "numpy/__init__.pyi"):
        assert trim.trimmed(path), path
    # Only while the transport is all that is used of the client may its models be missing.
    used = [file for file in (ROOT / "tools").rglob("*.py") if "kubernetes.aio" in file.read_text()]
    assert [file.name for file in used] == ["connection.py"]
    assert set(re.findall(r"\bclient\.(\w+)", used[0].read_text())) <= {"Configuration", "ApiClient"}


def test_the_guide_names_every_dockerfile() -> None:
    guide = Path(ROOT, "docs", "install-kubernetes.md").read_text() + Path(IMAGES, "README.md").read_text()
    for name in NAMES:
        assert f"images/{name}.Dockerfile" in guide
