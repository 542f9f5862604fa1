"""The only reader of the environment. Each field says its unit, its default and why; `.env.example` lists them all."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bot.core.errors import Misconfigured

SOURCE = Path(__file__).resolve().parent.parent  # where `trainers` is imported from
TRAINERS_PYTHON = SOURCE / ".venv-trainers" / "bin" / "python"


class Settings(BaseSettings):
    """Read once, by `load`, and handed to `bot.bootstrap`."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", extra="ignore", env_ignore_empty=True)

    # -- outside services; all optional ---------------------------------------------------------------------------
    openai_api_key: SecretStr | None = Field(
        default=None, alias="OPENAI_API_KEY", description="turns the language model on; without it the planner answers"
    )
    openai_base_url: str | None = Field(
        default=None, alias="OPENAI_BASE_URL", description="an OpenAI-compatible server; default OpenAI's own"
    )
    openai_model: str = Field(default="gpt-5-mini", alias="OPENAI_MODEL", description="the model's name there")
    mlflow_tracking_uri: str | None = Field(
        default=None, alias="MLFLOW_TRACKING_URI", description="an MLflow server; default a SQLite file under the home"
    )
    database_url: str | None = Field(
        default=None,
        alias="DATABASE_URL",
        description="sqlite:///PATH or postgresql://…; default a file under the home",
    )

    # -- Slack; needed by `serve` alone -----------------------------------------------------------------------------
    slack_bot_token: SecretStr | None = Field(
        default=None, alias="SLACK_BOT_TOKEN", description="the app's bot token, xoxb-…"
    )
    slack_app_token: SecretStr | None = Field(
        default=None, alias="SLACK_APP_TOKEN", description="the app's token for sockets, xapp-…"
    )
    slack_signing_secret: SecretStr | None = Field(
        default=None, alias="SLACK_SIGNING_SECRET", description="proves requests over HTTP; not needed over sockets"
    )
    slack_api_url: str = Field(
        default="https://slack.com/api/", alias="SLACK_API_URL", description="Slack's address, sockets included"
    )
    slack_mode: Literal["socket", "http"] = Field(
        default="socket",
        alias="SIGNALBOX_SLACK_MODE",
        description="sockets need no public address; http takes signed requests at /slack/events",
    )
    http_host: str = Field(
        default="127.0.0.1",
        alias="SIGNALBOX_HTTP_HOST",
        description="address of the bot's own HTTP",
    )
    http_port: int = Field(
        default=3000, ge=0, le=65535, alias="SIGNALBOX_HTTP_PORT", description="its port; 0 takes a free one"
    )
    digest_channel: str | None = Field(
        default=None, alias="SIGNALBOX_DIGEST_CHANNEL", description="id of the channel that gets the daily digest"
    )

    # -- Signalbox's own ------------------------------------------------------------------------------------------
    home: Path = Field(
        default=Path(".signalbox"),
        alias="SIGNALBOX_HOME",
        description="folder of everything that is kept on this machine",
    )
    policy_file: Path = Field(
        default=Path(__file__).parent / "policy.yaml",
        alias="SIGNALBOX_POLICY_FILE",
        description="who may decide, quorum, time limits, budget; default the terminal chat's",
    )
    rates_file: Path = Field(
        default=SOURCE / "tools" / "rates.yaml",
        alias="SIGNALBOX_RATES_FILE",
        description="what an hour costs; default 0.05 $/core-h and 0.25 $/GPU-h",
    )
    timezone: str = Field(
        default="UTC", alias="SIGNALBOX_TIMEZONE", description="IANA name; days and months of budgets and digests"
    )
    digest_hour: int = Field(
        default=9,
        ge=0,
        le=23,
        alias="SIGNALBOX_DIGEST_HOUR",
        description="local hour from which yesterday's digest is sent",
    )
    chat_user: str = Field(
        default="requester", alias="SIGNALBOX_CHAT_USER", description="who you are when the terminal chat starts"
    )
    model_timeout_seconds: float = Field(
        default=60,
        gt=0,
        alias="SIGNALBOX_MODEL_TIMEOUT_SECONDS",
        description="for one call to the language model; then the planner answers",
    )

    # -- where trainings run ----------------------------------------------------------------------------------------
    engine: Literal["local", "kubernetes", "auto"] = Field(
        default="local",
        alias="SIGNALBOX_ENGINE",
        description="this machine's processes or a cluster's Jobs; auto takes the cluster if there are credentials for "
        "one, and of what is named below what it has",
    )
    kubeconfig: str | None = Field(
        default=None, alias="KUBECONFIG", description="path of the cluster's credentials; default the pod's own account"
    )
    namespace: str = Field(
        default="ml-training",
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        alias="SIGNALBOX_NAMESPACE",
        description="of trainings in the cluster",
    )
    image_cpu: str = Field(
        default="signalbox-trainer:cpu",
        alias="SIGNALBOX_IMAGE_CPU",
        description="the trainers' image for CPU cores; by digest in production",
    )
    image_gpu: str = Field(
        default="signalbox-trainer:cuda", alias="SIGNALBOX_IMAGE_GPU", description="the same for GPUs"
    )
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(
        default="IfNotPresent",
        alias="SIGNALBOX_IMAGE_PULL_POLICY",
        description="Never where images are loaded onto the nodes by hand",
    )
    data_claim: str | None = Field(
        default=None,
        alias="SIGNALBOX_DATA_CLAIM",
        description="PersistentVolumeClaim of data sets, mounted at /data; default an empty folder",
    )
    output_claim: str | None = Field(
        default=None,
        alias="SIGNALBOX_OUTPUT_CLAIM",
        description="PersistentVolumeClaim of checkpoints, mounted at /output; default they are lost with their pod",
    )
    queue: str | None = Field(
        default=None,
        alias="SIGNALBOX_QUEUE",
        description="Kueue's LocalQueue that decides when a training starts; default at once",
    )
    runtime: str | None = Field(
        default=None,
        alias="SIGNALBOX_RUNTIME",
        description="Kubeflow Trainer's ClusterTrainingRuntime for trainings of several nodes; default one node each",
    )
    gpu_product: str | None = Field(
        default=None,
        alias="SIGNALBOX_GPU_PRODUCT",
        description="the GPUs to take, by the node label nvidia.com/gpu.product; default any, priced as the dearest",
    )
    cluster_cpu_cores: Decimal = Field(
        default=Decimal(4), gt=0, alias="SIGNALBOX_CLUSTER_CPU_CORES", description="cores that a training gets"
    )
    cluster_memory_gib: Decimal = Field(
        default=Decimal(8), gt=0, alias="SIGNALBOX_CLUSTER_MEMORY_GIB", description="memory that a training gets, GiB"
    )
    cluster_storage_gib: int = Field(
        default=10,
        ge=1,
        alias="SIGNALBOX_CLUSTER_STORAGE_GIB",
        description="a node's disk that a training gets, GiB; logs, output and caches",
    )
    cluster_max_jobs: int = Field(
        default=20,
        ge=1,
        alias="SIGNALBOX_CLUSTER_MAX_JOBS",
        description="trainings that may wait in the cluster at once, the rest queue here",
    )
    start_minutes: int = Field(
        default=30,
        ge=1,
        alias="SIGNALBOX_START_MINUTES",
        description="that a training may hold its node while its image or a volume of it is not to be had",
    )
    cluster_keep_hours: int = Field(
        default=24,
        ge=1,
        alias="SIGNALBOX_CLUSTER_KEEP_HOURS",
        description="that an ended Job stays to be read; longer than this bot is ever away",
    )

    # -- the local engine -----------------------------------------------------------------------------------------
    trainer_python: Path = Field(
        default=TRAINERS_PYTHON,
        alias="SIGNALBOX_TRAINER_PYTHON",
        description="interpreter of the trainers' environment, which has PyTorch; default what `make setup` makes",
    )
    data_dir: Path | None = Field(
        default=None, alias="SIGNALBOX_DATA_DIR", description="data sets (MNIST/raw, text, models); default HOME/data"
    )
    local_cpu_cores: Decimal = Field(
        default=Decimal(4), gt=0, alias="SIGNALBOX_LOCAL_CPU_CORES", description="cores charged for a CPU training"
    )
    local_gpus: int | None = Field(
        default=None,
        ge=0,
        alias="SIGNALBOX_LOCAL_GPUS",
        description="GPUs of this machine; default what nvidia's driver shows",
    )
    local_max_jobs: int = Field(
        default=1,
        ge=1,
        alias="SIGNALBOX_LOCAL_MAX_JOBS",
        description="trainings at once, the rest queue; one, because two would slow and so falsify each other's cost",
    )
    local_grace_seconds: int = Field(
        default=30,
        ge=1,
        alias="SIGNALBOX_LOCAL_GRACE_SECONDS",
        description="from SIGTERM to SIGKILL, for the checkpoint",
    )

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"{value!r} is no time zone; write an IANA name such as Europe/Berlin") from error
        return value

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @property
    def folder(self) -> Path:
        """The home, absolute: trainings run elsewhere."""
        return self.home.expanduser().absolute()

    @property
    def data_folder(self) -> Path:
        return (self.data_dir or self.folder / "data").expanduser().absolute()

    @property
    def sqlite(self) -> bool:
        """One host, one bot: SQLite is no place for replicas."""
        return self.database.startswith("sqlite")

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.folder / 'signalbox.db'}"

    @property
    def conversations(self) -> str:
        """Where the agent's memory goes: the same PostgreSQL, or a SQLite file of its own beside the other."""
        postgres = self.database_url is not None and self.database_url.startswith("postgres")
        return self.database if postgres else f"sqlite:///{self.folder / 'conversations.db'}"

    @property
    def tracking_uri(self) -> str:
        return self.mlflow_tracking_uri or f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def artifact_root(self) -> Path | None:
        """Where artifacts go; None lets an MLflow server say."""
        return None if self.mlflow_tracking_uri else self.folder / "artifacts"


def load() -> Settings:
    """The settings of this process. `Misconfigured` names the first variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "the environment"
        raise Misconfigured(f"{name}: {first['msg'].removeprefix('Value error, ')}. See .env.example.") from error
