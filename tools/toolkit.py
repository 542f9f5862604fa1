"""The agent's tools: plain typed functions over one port, the `Desk`. The only LangChain file in `tools`.

A tool's docstring is what the model reads. Every tool answers with text that was rendered from rows, so that what a
model repeats is what the database holds. Who asks, and where, comes from the runtime context alone; a model that
sends a requester, channel or thread of its own changes nothing. No tool approves, rejects or starts anything:
`trigger_training_job` makes a proposal that waits for people, and `cancel_job` asks a person to confirm.
Next step of a call: the desk (`bot.desk`) and the use cases behind it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Any

from langchain.tools import ToolRuntime, tool
from langchain_core.tools import BaseTool, ToolException
from pydantic import BaseModel, create_model

from tools.desk import Caller, Desk, DeskError
from tools.spec import SpecError, TrainingSpec, parse_spec

Runtime = ToolRuntime[Caller, Any]


class Training(BaseModel):
    """What a model may say of a training. Numbers may come as text, for `tools.spec` to read or refuse."""

    model_type: str = "mnist"
    epochs: int | str | None = None
    lr: float | str | None = None
    batch_size: int | str | None = None
    gpu_enabled: bool | str | None = None
    gpus: int | str | None = None
    nodes: int | str | None = None
    memory_gib: int | str | None = None
    seed: int | str | None = None
    max_runtime_minutes: int | str | None = None
    model: str | None = None
    dataset: str | None = None
    block_size: int | str | None = None


_COSTS: dict[str, Any] = {
    name: (field.annotation, field.default) for name, field in Training.model_fields.items() if name != "seed"
}
Estimated = create_model("Estimated", **_COSTS)  # a seed costs nothing


def build_toolkit(desk: Desk) -> list[BaseTool]:
    """The agent's tools over `desk`, in the order in which the model sees them."""

    @tool
    async def list_mlflow_experiments(runtime: Runtime, experiment_name: str | None = None) -> str:
        """List the MLflow experiments with their newest runs, or the runs of one experiment.

        Args:
            experiment_name: one experiment's name, such as "mnist"; leave out for all.
        """
        return await _told(desk.experiments(runtime.context, experiment_name))

    @tool
    async def get_experiment_metrics(runtime: Runtime, run_id: str | None = None) -> str:
        """Show one run's parameters, metrics, per-epoch table and learning curve.

        Args:
            run_id: an MLflow run id (or its first characters), a job's name, or a proposal's number such as "3";
                leave out for the newest run of this thread.
        """
        return await _told(desk.metrics(runtime.context, run_id))

    @tool(args_schema=Training)
    async def trigger_training_job(runtime: Runtime, **given: Any) -> str:
        """Propose a training. It does NOT start anything: people approve or reject the proposal with their own hands.

        Args:
            model_type: the recipe, such as "digits", "mnist", "cifar10" or "distilgpt2".
            epochs: passes over the training data; leave out for the recipe's default, like every parameter below.
            lr: learning rate.
            batch_size: examples a step.
            gpu_enabled: true for one GPU, false for CPU cores; leave out unless the person said which.
            gpus: how many GPUs (of each node), if the person named a number.
            nodes: for distilgpt2 only: how many nodes train together, if the person named a number.
            memory_gib: GiB of memory, if the person named it.
            seed: random seed.
            max_runtime_minutes: hard limit of the run time.
            model: for distilgpt2 only: another Hugging Face model, or a folder below the data folder.
            dataset: for distilgpt2 only: another Hugging Face data set, or text below the data folder.
            block_size: for distilgpt2 only: tokens a block.
        """
        return await _told(desk.propose(runtime.context, _spec(given)))

    @tool(args_schema=Estimated)
    async def estimate_training_cost(runtime: Runtime, **given: Any) -> str:
        """Say what a training would cost and how long it would take, without proposing it.

        Args: the same as for trigger_training_job.
        """
        return await _told(desk.estimate(runtime.context, _spec(given)))

    @tool
    async def get_training_status(runtime: Runtime, job_name: str | None = None) -> str:
        """Show how a training is doing: phase, progress, time left, and the end of its log.

        Args:
            job_name: a job's name or a proposal's number such as "3"; leave out for the newest of this thread.
        """
        return await _told(desk.status(runtime.context, job_name))

    @tool
    async def calculate_training_cost(runtime: Runtime, job_name: str | None = None) -> str:
        """Show what an existing job has cost so far, against its estimate and ceiling.

        Args:
            job_name: a job's name or a proposal's number such as "3"; leave out for the newest of this thread.
        """
        return await _told(desk.cost(runtime.context, job_name))

    @tool
    async def list_jobs(runtime: Runtime, phase: str | None = None) -> str:
        """List the proposals that wait for approval, the queue and the jobs.

        Args:
            phase: pending, queued, running, succeeded, failed or cancelled; leave out for all.
        """
        return await _told(desk.jobs(runtime.context, phase))

    @tool
    async def compare_runs(runtime: Runtime, runs: list[str] | str | None = None) -> str:
        """Compare trainings side by side: parameters, metrics, duration, cost.

        Args:
            runs: two or more proposal numbers, job names or run ids, or the words "latest", "best", "yesterday's best";
                leave out for the newest two of this thread.
        """
        return await _told(desk.compare(runtime.context, _references(runs)))

    @tool
    async def cancel_job(runtime: Runtime, job_name: str) -> str:
        """Ask for a job to be cancelled or a proposal to be withdrawn. A person has to confirm it with a command.

        Args:
            job_name: a job's name or a proposal's number such as "3".
        """
        return await _told(desk.ask_to_cancel(runtime.context, job_name))

    @tool
    async def get_spend(runtime: Runtime, period: str = "month") -> str:
        """Show what was spent in a period, by person and recipe, and what is left of the budget.

        Args:
            period: "today", "yesterday", "week", "month", "last month", a date such as 2026-11-23, or a month
                such as 2026-11.
        """
        return await _told(desk.spend(runtime.context, period))

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
        made.handle_tool_error = True  # a refusal's sentence becomes the tool's answer
    return tools


async def _told(asked: Awaitable[str]) -> str:
    """The desk's answer; its refusal as LangChain's, which hands the sentence to the model."""
    try:
        return await asked
    except DeskError as error:
        raise ToolException(str(error)) from error


def _references(runs: list[str] | str | None) -> list[str]:
    """Numbers, names or words for runs; in one text they stand between commas, "and" or spaces."""
    if not isinstance(runs, str):
        return [str(run) for run in runs or []]
    parts = [part.strip() for part in re.split(r",|\band\b", runs) if part.strip()]
    return [word for part in parts for word in ([part] if part.endswith("best") else part.split())]


def _spec(given: dict[str, Any]) -> TrainingSpec:
    """What was asked for; `gpu_enabled` becomes a number of GPUs unless one was named."""
    recipe, enabled = given.pop("model_type"), given.pop("gpu_enabled")
    if given["gpus"] is None:
        given["gpus"] = enabled
    try:
        return parse_spec(recipe, given)
    except SpecError as error:
        raise ToolException(str(error)) from error
