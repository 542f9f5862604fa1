# The trainers for CPU cores: all of uv.lock but PyTorch and CUDA, then PyTorch's CPU build of the same version.
# Built from the repository's root: docker build -f images/trainer-cpu.Dockerfile -t signalbox-trainer:cpu .
# The digest is that of python:3.11-slim-bookworm (3.11.16) in docker-library/repo-info; images/README.md says how to move it.
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm@sha256:0bee7276f83efd4a1ee05bbbf4281d95ed28e079220a9457f25a93e3f1e3c31b

FROM ${PYTHON} AS build
ENV UV_PROJECT_ENVIRONMENT=/opt/venv UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy
WORKDIR /app
RUN apt-get update && apt-get install --yes --no-install-recommends binutils=2.40-2 && rm -rf /var/lib/apt/lists/*
COPY images/uv.txt images/
RUN python -m venv /opt/uv && /opt/uv/bin/python -m pip install --no-cache-dir --require-hashes -r images/uv.txt
COPY pyproject.toml uv.lock ./
COPY images/gpu-packages.txt images/torch-cpu.txt images/
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN --mount=type=cache,target=/root/.cache/uv \
    sed 's/^/--no-install-package=/' images/gpu-packages.txt \
    | xargs /opt/uv/bin/uv sync --frozen --python /usr/local/bin/python --no-default-groups --no-install-project \
    --extra trainers --no-install-package torch --no-install-package torchvision
# Its dependencies are there, from the lock: docs/adr/0008-cpu-torch.md.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv pip install --python /opt/venv --no-deps --index-url "${TORCH_INDEX}" -r images/torch-cpu.txt
COPY images/trim.py images/
RUN python images/trim.py /opt/venv/lib/python3.11/site-packages

FROM ${PYTHON}
RUN groupadd --gid 10001 signalbox && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp signalbox \
    && install -d -o 10001 -g 10001 /data /output
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY LICENSE ./
COPY trainers trainers
# A folder of models and data sets of yours, for where there is no hub; by default it is empty. A volume at /data hides it.
ARG BAKED=images/baked
COPY ${BAKED} /data
# 1: never ask the Hugging Face hub.
ARG HF_HUB_OFFLINE=0
ENV PATH=/opt/venv/bin:${PATH} \
    HOME=/tmp \
    TMPDIR=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    XDG_CACHE_HOME=/tmp/cache \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    HF_HOME=/tmp/huggingface \
    TORCHINDUCTOR_CACHE_DIR=/tmp/inductor \
    HF_HUB_OFFLINE=${HF_HUB_OFFLINE}
# Only bytecode: what the programs import, the standard library included, since at run time the root is read-only.
RUN --mount=type=bind,source=images/warm.py,target=/mnt/warm.py python -B /mnt/warm.py trainers
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="signalbox-trainer-cpu" \
    org.opencontainers.image.description="Signalbox's training programs, for CPU cores" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm"
USER 10001:10001
# Python is process 1 here: every trainer installs its handler of SIGTERM first, and leaves with a checkpoint.
STOPSIGNAL SIGTERM
# The bot's Jobs name a trainer and its arguments in its place.
CMD ["python", "-m", "trainers.mnist_cnn", "--dataset", "digits", "--data-dir", "/data", "--output-dir", "/output"]
