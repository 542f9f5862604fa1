"""The agent's tools: plain typed functions over one port, the `Desk`. The only LangChain file in `tools`.

A tool's docstring is what the model reads. Every tool answers with text that was rendered from rows, so that what a
model repeats is what the database holds. Who asks, and where, comes from the runtime context alone; a model that
sends a requester, channel or thread of its own changes nothing. No tool approves, rejects or starts anything:
`trigger_training_job` makes a proposal that waits for people, and `cancel_job` asks a person to confirm.
Next step of a call: the desk (`bot.desk`) and the use cases behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from langchain.tools import ToolRuntime, tool
from langchain_core.tools import BaseTool, ToolException

from tools.spec import SpecError, TrainingSpec, parse_spec


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who speaks, and where: the agent's runtime context, filled from the signed event, never by a model."""

    team: str
    channel: str
    thread: str
    user: str
    event_id: str
    prompt: str  # the person's own words, kept with the proposal
    proposed: list[str] = field(default_factory=list)  # canonical specs already proposed in this turn, in order


class DeskError(ToolException):
    """A refusal or failure that the person should read as it is: one sentence with the next step."""


class Desk(Protocol):
    """What the tools may ask of Signalbox. Every method answers in text for people and raises `DeskError`."""

    async def propose(self, caller: Caller, spec: TrainingSpec) -> str: ...
    async def estimate(self, caller: Caller, spec: TrainingSpec) -> str: ...
    async def experiments(self, caller: Caller, name: str | None) -> str: ...
    async def metrics(self, caller: Caller, reference: str | None) -> str: ...
    async def compare(self, caller: Caller, references: Sequence[str]) -> str: ...
    async def status(self, caller: Caller, reference: str | None) -> str: ...
    async def cost(self, caller: Caller, reference: str | None) -> str: ...
    async def jobs(self, caller: Caller, phase: str | None) -> str: ...
    async def ask_to_cancel(self, caller: Caller, reference: str) -> str: ...
    async def spend(self, caller: Caller, period: str) -> str: ...


Runtime = ToolRuntime[Caller, Any]


def build_toolkit(desk: Desk) -> list[BaseTool]:
    """The agent's tools over `desk`, in the order in which the model sees them."""

    @tool
    async def list_mlflow_experiments(runtime: Runtime, experiment_name: str | None = None) -> str:
        """List the MLflow experiments with their newest runs, or the runs of one experiment.

        Args:
            experiment_name: one experiment's name, such as "mnist"; leave out for all.
        """
        return await desk.experiments(runtime.context, experiment_name)

    @tool
    async def get_experiment_metrics(runtime: Runtime, run_id: str | None = None) -> str:
        """Show one run's parameters, metrics, per-epoch table and learning curve.

        Args:
            run_id: an MLflow run id (or its first characters), a job's name, or a proposal's number such as "3";
                leave out for the newest run of this thread.
        """
        return await desk.metrics(runtime.context, run_id)

    @tool
    async def trigger_training_job(
        runtime: Runtime,
        model_type: str = "mnist",
        epochs: int | str | None = None,
        lr: float | str | None = None,
        batch_size: int | str | None = None,
        gpu_enabled: bool | str | None = None,
        gpus: int | str | None = None,
        seed: int | str | None = None,
        max_runtime_minutes: int | str | None = None,
        model: str | None = None,
        dataset: str | None = None,
        block_size: int | str | None = None,
    ) -> str:
        """Propose a training. It does NOT start anything: people approve or reject the proposal with their own hands.

        Args:
            model_type: the recipe: "digits", "mnist" or "distilgpt2".
            epochs: passes over the training data; leave out for the recipe's default, like every parameter below.
            lr: learning rate.
            batch_size: examples a step.
            gpu_enabled: true for one GPU, false for CPU cores; leave out unless the person said which.
            gpus: how many GPUs, if the person named a number.
            seed: random seed.
            max_runtime_minutes: hard limit of the run time.
            model: for distilgpt2 only: another Hugging Face model, or a folder below the data folder.
            dataset: for distilgpt2 only: another Hugging Face data set, or text below the data folder.
            block_size: for distilgpt2 only: tokens a block.
        """
        parameters = _parameters(locals())
        return await desk.propose(runtime.context, _spec(model_type, parameters))

    @tool
    async def estimate_training_cost(
        runtime: Runtime,
        model_type: str = "mnist",
        epochs: int | str | None = None,
        lr: float | str | None = None,
        batch_size: int | str | None = None,
        gpu_enabled: bool | str | None = None,
        gpus: int | str | None = None,
        max_runtime_minutes: int | str | None = None,
        model: str | None = None,
        dataset: str | None = None,
        block_size: int | str | None = None,
    ) -> str:
        """Say what a training would cost and how long it would take, without proposing it.

        Args: the same as for trigger_training_job.
        """
        parameters = _parameters(locals())
        return await desk.estimate(runtime.context, _spec(model_type, parameters))

    @tool
    async def get_training_status(runtime: Runtime, job_name: str | None = None) -> str:
        """Show how a training is doing: phase, progress, time left, and the end of its log.

        Args:
            job_name: a job's name or a proposal's number such as "3"; leave out for the newest of this thread.
        """
        return await desk.status(runtime.context, job_name)

    @tool
    async def calculate_training_cost(runtime: Runtime, job_name: str | None = None) -> str:
        """Show what an existing job has cost so far, against its estimate and ceiling.

        Args:
            job_name: a job's name or a proposal's number such as "3"; leave out for the newest of this thread.
        """
        return await desk.cost(runtime.context, job_name)

    @tool
    async def list_jobs(runtime: Runtime, phase: str | None = None) -> str:
        """List the proposals that wait for approval, the queue and the jobs.

        Args:
            phase: pending, queued, running, succeeded, failed or cancelled; leave out for all.
        """
        return await desk.jobs(runtime.context, phase)

    @tool
    async def compare_runs(runtime: Runtime, runs: list[str] | str | None = None) -> str:
        """Compare trainings side by side: parameters, metrics, duration, cost.

        Args:
            runs: two or more proposal numbers, job names or run ids; leave out for the newest two of this thread.
        """
        references = runs.replace(",", " ").split() if isinstance(runs, str) else list(runs or [])
        return await desk.compare(runtime.context, references)

    @tool
    async def cancel_job(runtime: Runtime, job_name: str) -> str:
        """Ask for a job to be cancelled or a proposal to be withdrawn. A person has to confirm it with a command.

        Args:
            job_name: a job's name or a proposal's number such as "3".
        """
        return await desk.ask_to_cancel(runtime.context, job_name)

    @tool
    async def get_spend(runtime: Runtime, period: str = "month") -> str:
        """Show what was spent in a period, by person and recipe, and what is left of the budget.

        Args:
            period: "today", "yesterday", "week", "month", "last month", a date such as 2026-11-23, or a month
                such as 2026-11.
        """
        return await desk.spend(runtime.context, period)

    tools: list[BaseTool] = [
        trigger_training_job,
        estimate_training_cost,
        get_training_status,
        list_jobs,
        get_experiment_metrics,
        list_mlflow_experiments,
        compare_runs,
        calculate_training_cost,
        get_spend,
        cancel_job,
    ]
    for made in tools:
        made.handle_tool_error = True  # a DeskError's sentence becomes the tool's answer
    return tools


def _parameters(arguments: dict[str, Any]) -> dict[str, object]:
    """A tool's own arguments as spec parameters; `gpu_enabled` becomes a number of GPUs unless one was named."""
    given = {name: value for name, value in arguments.items() if name not in {"runtime", "model_type", "desk"}}
    enabled = given.pop("gpu_enabled", None)
    if given.get("gpus") is None and enabled is not None:
        given["gpus"] = enabled
    return given


def _spec(recipe: str, parameters: dict[str, object]) -> TrainingSpec:
    try:
        return parse_spec(recipe, parameters)
    except SpecError as error:
        raise DeskError(str(error)) from error
