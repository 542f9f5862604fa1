"""MLflow's tracking server over real HTTP, as far as the trainers' writer asks of it: MLflow's own SQLite store behind.

It can be stopped, so that nothing listens at its port, and started again at the same one. The bot's tests have a fuller
one, on aiohttp, which the trainers' environment has not.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from mlflow.entities import Metric, Param, RunTag
from mlflow.protos import service_pb2 as proto
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.proto_json_utils import message_to_json, parse_dict

API = "/api/2.0/mlflow/"


def _get(store: SqlAlchemyStore, asked: Any) -> Any:
    return proto.GetRun.Response(run=store.get_run(asked.run_id or asked.run_uuid).to_proto())


def _update(store: SqlAlchemyStore, asked: Any) -> Any:
    info = store.update_run_info(asked.run_id, asked.status, asked.end_time or None, asked.run_name or None)
    return proto.UpdateRun.Response(run_info=info.to_proto())


def _batch(store: SqlAlchemyStore, asked: Any) -> Any:
    metrics = [Metric.from_proto(one) for one in asked.metrics]
    store.log_batch(
        asked.run_id, metrics, [Param.from_proto(p) for p in asked.params], [RunTag.from_proto(t) for t in asked.tags]
    )
    return proto.LogBatch.Response()


VERBS = {
    "runs/get": (proto.GetRun, _get),
    "runs/update": (proto.UpdateRun, _update),
    "runs/log-batch": (proto.LogBatch, _batch),
}


class Server:
    """`url`, `store` and `run_id` of a run that waits; `start` and `stop` as often as wanted."""

    def __init__(self, folder: Path) -> None:
        self.store = SqlAlchemyStore(f"sqlite:///{folder / 'tracking.db'}", str(folder / "artifacts"))
        experiment = self.store.create_experiment("yard")
        self.run_id = self.store.create_run(experiment, "someone", 0, [], "a run").info.run_id
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def status(self) -> str:
        return str(self.store.get_run(self.run_id).info.status)

    def start(self) -> None:
        store = self.store

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(dict(parse_qsl(urlsplit(self.path).query)))

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, given: dict[str, Any]) -> None:
                verb = urlsplit(self.path).path.removeprefix(API)
                if verb not in VERBS:
                    return self._send(404, b"Not Found")
                kind, act = VERBS[verb]
                asked = kind()
                parse_dict(given, asked)
                return self._send(200, message_to_json(act(store, asked)).encode())

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
