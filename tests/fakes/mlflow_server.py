"""MLflow's tracking server over real HTTP, as far as Signalbox and its trainers ask of it: MLflow's own store behind.

The lean client has no server of its own. What it does not know is answered as the real one answers an unknown path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from google.protobuf.message import Message
from mlflow.entities import ExperimentTag, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos import service_pb2 as proto
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.proto_json_utils import message_to_json, parse_dict

API = "/api/2.0/mlflow"


class MlflowServer:
    """`async with MlflowServer(folder) as server`: `url`, and `store` to look into."""

    def __init__(self, folder: Path) -> None:
        self.store = SqlAlchemyStore(f"sqlite:///{folder / 'tracking.db'}", str(folder / "artifacts"))
        self.requests: list[str] = []
        app = web.Application()
        app.router.add_route("*", API + "/{verb:.+}", self._answer)
        self._runner = web.AppRunner(app)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        verb = request.match_info["verb"]
        self.requests.append(verb)
        found = _VERBS.get(verb)
        if found is None:
            return web.Response(status=404, text="Not Found")
        kind, act = found
        asked = kind()
        given = await request.json() if request.can_read_body else _query(request, asked)
        parse_dict(given, asked)
        try:
            answer = await asyncio.to_thread(act, self.store, asked)
        except MlflowException as error:
            return web.Response(
                status=error.get_http_status_code(), text=error.serialize_as_json(), content_type="application/json"
            )
        return web.Response(text=message_to_json(answer), content_type="application/json")


def _query(request: web.Request, asked: Message) -> dict[str, Any]:
    many = {field.name for field in asked.DESCRIPTOR.fields if field.is_repeated}
    return {name: request.query.getall(name) if name in many else value for name, value in request.query.items()}


def _search_experiments(store: SqlAlchemyStore, asked: Any) -> Message:
    found = store.search_experiments(
        view_type=asked.view_type or 1,
        max_results=asked.max_results or 1000,
        filter_string=asked.filter or None,
        order_by=list(asked.order_by) or None,
        page_token=asked.page_token or None,
    )
    answer = proto.SearchExperiments.Response(experiments=[one.to_proto() for one in found])
    if found.token:
        answer.next_page_token = found.token
    return answer


def _by_name(store: SqlAlchemyStore, asked: Any) -> Message:
    found = store.get_experiment_by_name(asked.experiment_name)
    if found is None:
        raise MlflowException(
            f"Could not find experiment with name '{asked.experiment_name}'", error_code=RESOURCE_DOES_NOT_EXIST
        )
    return proto.GetExperimentByName.Response(experiment=found.to_proto())


def _create_experiment(store: SqlAlchemyStore, asked: Any) -> Message:
    tags = [ExperimentTag(tag.key, tag.value) for tag in asked.tags]
    made = store.create_experiment(asked.name, asked.artifact_location or None, tags)
    return proto.CreateExperiment.Response(experiment_id=made)


def _experiment(store: SqlAlchemyStore, asked: Any) -> Message:
    return proto.GetExperiment.Response(experiment=store.get_experiment(asked.experiment_id).to_proto())


def _create_run(store: SqlAlchemyStore, asked: Any) -> Message:
    tags = [RunTag(tag.key, tag.value) for tag in asked.tags]
    made = store.create_run(asked.experiment_id, asked.user_id, asked.start_time, tags, asked.run_name)
    return proto.CreateRun.Response(run=made.to_proto())


def _run(store: SqlAlchemyStore, asked: Any) -> Message:
    return proto.GetRun.Response(run=store.get_run(asked.run_id or asked.run_uuid).to_proto())


def _search_runs(store: SqlAlchemyStore, asked: Any) -> Message:
    found = store.search_runs(
        list(asked.experiment_ids),
        asked.filter,
        asked.run_view_type or 1,
        asked.max_results or 1000,
        list(asked.order_by),
        asked.page_token or None,
    )
    answer = proto.SearchRuns.Response(runs=[one.to_proto() for one in found])
    if found.token:
        answer.next_page_token = found.token
    return answer


def _update_run(store: SqlAlchemyStore, asked: Any) -> Message:
    status = asked.status if asked.HasField("status") else RunStatus.from_string("RUNNING")
    info = store.update_run_info(asked.run_id, status, asked.end_time or None, asked.run_name or None)
    return proto.UpdateRun.Response(run_info=info.to_proto())


def _log_batch(store: SqlAlchemyStore, asked: Any) -> Message:
    metrics = [Metric.from_proto(one) for one in asked.metrics]
    params, tags = [Param.from_proto(one) for one in asked.params], [RunTag.from_proto(one) for one in asked.tags]
    store.log_batch(asked.run_id, metrics, params, tags)
    return proto.LogBatch.Response()


def _set_tag(store: SqlAlchemyStore, asked: Any) -> Message:
    store.set_tag(asked.run_id, RunTag(asked.key, asked.value))
    return proto.SetTag.Response()


def _log_metric(store: SqlAlchemyStore, asked: Any) -> Message:
    store.log_metric(asked.run_id, Metric(asked.key, asked.value, asked.timestamp, asked.step))
    return proto.LogMetric.Response()


def _log_param(store: SqlAlchemyStore, asked: Any) -> Message:
    store.log_param(asked.run_id, Param(asked.key, asked.value))
    return proto.LogParam.Response()


def _delete_run(store: SqlAlchemyStore, asked: Any) -> Message:
    store.delete_run(asked.run_id)
    return proto.DeleteRun.Response()


def _history(store: SqlAlchemyStore, asked: Any) -> Message:
    found = store.get_metric_history(asked.run_id, asked.metric_key)
    return proto.GetMetricHistory.Response(metrics=[one.to_proto() for one in found])


_VERBS: dict[str, tuple[Callable[[], Message], Callable[[SqlAlchemyStore, Any], Message]]] = {
    "experiments/search": (proto.SearchExperiments, _search_experiments),
    "experiments/get-by-name": (proto.GetExperimentByName, _by_name),
    "experiments/create": (proto.CreateExperiment, _create_experiment),
    "experiments/get": (proto.GetExperiment, _experiment),
    "runs/create": (proto.CreateRun, _create_run),
    "runs/get": (proto.GetRun, _run),
    "runs/search": (proto.SearchRuns, _search_runs),
    "runs/update": (proto.UpdateRun, _update_run),
    "runs/log-batch": (proto.LogBatch, _log_batch),
    "runs/set-tag": (proto.SetTag, _set_tag),
    "runs/log-metric": (proto.LogMetric, _log_metric),
    "runs/log-parameter": (proto.LogParam, _log_param),
    "runs/delete": (proto.DeleteRun, _delete_run),
    "metrics/get-history": (proto.GetMetricHistory, _history),
}
