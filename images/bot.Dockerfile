# The bot: agent, Slack, store and engines; no PyTorch.
# Built from the repository's root: docker build -f images/bot.Dockerfile -t signalbox-bot:0.1.0 .
# The digest is that of python:3.11-slim-bookworm (3.11.16) in docker-library/repo-info; images/README.md says how to move it.
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm@sha256:0bee7276f83efd4a1ee05bbbf4281d95ed28e079220a9457f25a93e3f1e3c31b

FROM ${PYTHON} AS build
ENV UV_PROJECT_ENVIRONMENT=/opt/venv UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy
WORKDIR /app
RUN apt-get update && apt-get install --yes --no-install-recommends binutils=2.40-2 && rm -rf /var/lib/apt/lists/*
COPY images/uv.txt images/
RUN python -m venv /opt/uv && /opt/uv/bin/python -m pip install --no-cache-dir --require-hashes -r images/uv.txt
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv sync --frozen --python /usr/local/bin/python --no-default-groups --no-install-project --extra bot
COPY images/trim.py images/
RUN python images/trim.py /opt/venv/lib/python3.11/site-packages

FROM ${PYTHON}
RUN groupadd --gid 10001 signalbox && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp signalbox \
    && install -d -o 10001 -g 10001 /var/lib/signalbox
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY LICENSE ./
COPY tools tools
COPY bot bot
ENV PATH=/opt/venv/bin:${PATH} \
    HOME=/tmp \
    TMPDIR=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    XDG_CACHE_HOME=/tmp/cache \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    SIGNALBOX_HOME=/var/lib/signalbox \
    SIGNALBOX_HTTP_HOST=0.0.0.0
# Only bytecode: what the programs import, the standard library included, since at run time the root is read-only.
RUN --mount=type=bind,source=images/warm.py,target=/mnt/warm.py python -B /mnt/warm.py bot
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="signalbox-bot" \
    org.opencontainers.image.description="Proposes, approves, runs and accounts for model training" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm"
USER 10001:10001
EXPOSE 3000
# Python is process 1 here: `serve` installs its own handler of SIGTERM, and reaps no strangers, as there are none.
STOPSIGNAL SIGTERM
CMD ["python", "-m", "bot", "serve"]
