"""MLflow through `tools.tracking`: a real SQLite file, servers that refuse or hang, and the pictures of curves.

What must hold: one run a proposal whoever is first, text from MLflow that is safe to show, and for every failure a
sentence without secrets, in time.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from bot.core.job import JobPhase
from bot.runs import TrackedRuns
from tools.curves import comparison_curve, learning_curve
from tools.tracking import ENVIRONMENT, Tracking, TrackingError, TrackingUnavailable, compared

EPOCHS = [
    {"epoch": float(number), "train_loss": 2 / number, "val_loss": 2.2 / number, "val_accuracy": 1 - 0.5 / number}
    for number in range(1, 6)
]


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose schema is up to date, made once, for MLflow's migrations are slow."""
    path = tmp_path_factory.mktemp("migrated") / "deep" / "mlflow.db"
    asyncio.run(Tracking(f"sqlite:///{path}").ping())
    return path


@pytest.fixture
def tracking(tmp_path: Path, migrated: Path) -> Tracking:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return Tracking(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "artifacts")


def client(tracking: Tracking) -> Any:
    """MLflow itself, as a trainer uses it."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking.uri)


async def ensure(tracking: Tracking, proposal_id: str = "p1", **given: Any) -> str:
    experiment = given.pop("experiment", "digits")
    known: dict[str, Any] = {"name": "digits-1", "tags": {"signalbox.recipe": "digits"}, "params": {"lr": "0.1"}}
    return await tracking.ensure_run(experiment, proposal_id=proposal_id, **{**known, **given})


# -- one run a proposal -------------------------------------------------------------------------------------------


async def test_a_run_is_made_once_and_found_again(tracking: Tracking) -> None:
    run_id = await ensure(tracking)
    other = await ensure(tracking, "p2")
    again = Tracking(tracking.uri)  # after a crash between the create and its record
    assert await ensure(again) == run_id != other
    (listed,) = await tracking.experiments()
    assert (listed.name, listed.runs) == ("digits", 2)


async def test_first_uses_at_once_migrate_once_and_make_one_run(tmp_path: Path) -> None:
    tracking = Tracking(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "artifacts")
    made = await asyncio.gather(*(ensure(tracking) for _ in range(6)), *(ensure(tracking, "p2") for _ in range(2)))
    assert len(set(made[:6])) == 1 and len(set(made)) == 2
    assert len(await tracking.search("digits", 10)) == 2


def test_processes_that_use_a_fresh_file_at_once_agree(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys; from tools.tracking import Tracking\n"
        "made = Tracking(sys.argv[1]).ensure_run('digits', proposal_id='p1', name='n', tags={}, params={'lr': '1'})\n"
        "print(asyncio.run(made))"
    )
    command = [sys.executable, "-c", program, f"sqlite:///{tmp_path}/deep/mlflow.db"]
    users = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [user.communicate(timeout=60)[0].strip() for user in users]
    assert [user.returncode for user in users] == [0, 0], "MLflow's migrations break each other"
    assert "" not in told


async def test_a_crash_before_the_parameters_is_mended(tracking: Tracking) -> None:
    await tracking.ping()
    raw = client(tracking)
    run = raw.create_run(raw.create_experiment("digits"), tags={"signalbox.proposal": "p1"})
    assert await ensure(tracking, params={"lr": "0.1", "epochs": "3"}) == run.info.run_id
    found = await tracking.run(run.info.run_id)
    assert found and found.params == {"lr": "0.1", "epochs": "3"}


async def test_a_replicas_second_run_goes_when_the_first_is_closed(tracking: Tracking) -> None:
    run_id = await ensure(tracking)
    raw = client(tracking)
    spare = raw.create_run(raw.get_run(run_id).info.experiment_id, tags={"signalbox.proposal": "p1"}).info.run_id
    assert await ensure(tracking) == run_id, "the first made is the run"
    await tracking.close(run_id, "KILLED")
    await tracking.close(run_id, "KILLED")
    assert [(run.run_id, run.status) for run in await tracking.search("digits", 10)] == [(run_id, "KILLED")]
    assert raw.get_run(spare).info.lifecycle_stage == "deleted"


async def test_an_experiments_name_stays_below_the_root(tracking: Tracking, tmp_path: Path) -> None:
    run_id = await ensure(tracking, experiment="../../etc")
    found = await tracking.run(run_id)
    assert found and found.experiment == "../../etc"
    assert found.artifact_uri.startswith((tmp_path / "artifacts").as_uri()) and "/../" not in found.artifact_uri
    with pytest.raises(TrackingError, match="no proposal's id"):
        await ensure(tracking, "p1' OR tags.x = '")


# -- what comes out -----------------------------------------------------------------------------------------------


async def test_a_run_comes_out_whole_with_its_epochs(tracking: Tracking) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    run_id = await ensure(tracking)
    raw = client(tracking)
    for row in EPOCHS:
        for name, value in row.items():
            if name != "epoch":
                raw.log_metric(run_id, name, value, step=int(row["epoch"]))
    raw.log_metric(run_id, "val_perplexity", 7.5, step=3)
    for step in range(0, 50, 10):
        raw.log_metric(run_id, "loss", 1.0, step=step)
    raw.set_terminated(run_id)
    found = await tracking.run(run_id)
    assert found is not None
    assert (found.run_id, found.experiment, found.name, found.status) == (run_id, "digits", "digits-1", "FINISHED")
    assert found.tags == {"signalbox.recipe": "digits", "signalbox.proposal": "p1"}
    assert found.metrics["val_accuracy"] == 0.9 and found.metrics["loss"] == 1.0
    assert [dict(row) for row in found.epochs if "val_perplexity" not in row] == EPOCHS[:2] + EPOCHS[3:]
    assert dict(found.epochs[2]) == EPOCHS[2] | {"val_perplexity": 7.5}
    assert found.started_at and found.ended_at and before <= found.started_at <= found.ended_at
    assert found.ended_at.tzinfo is UTC and found.seconds is not None and 0 <= found.seconds < 30
    assert found == await tracking.run(run_id[:6])
    assert await tracking.run("f" * 32) is None and await tracking.run("zzzz") is None
    assert await tracking.run("") is None and await tracking.run("a' OR '1") is None


async def test_text_from_mlflow_is_cut_and_cleaned(tracking: Tracking) -> None:
    await ensure(tracking)
    raw = client(tracking)
    evil = "\x1b[31mred\x00\n<!channel>\u202e" + "x" * 400
    run = raw.create_run(raw.get_experiment_by_name("digits").experiment_id, run_name=evil, tags={"signalbox.x": evil})
    raw.log_param(run.info.run_id, "p", evil)
    found = await tracking.run(run.info.run_id)
    assert found is not None
    for text in (found.name, found.params["p"], found.tags["signalbox.x"]):
        assert len(text) <= 200 and text.isprintable() and "red" in text
    vast = evil * 25
    assert len(vast) > 10_000
    made = await tracking.run(await ensure(tracking, "p9", name=vast, params={"p": vast}, tags={"signalbox.x": vast}))
    assert made and max(map(len, (made.name, made.params["p"], made.tags["signalbox.x"]))) <= 200
    with pytest.raises(TrackingError) as caught:
        await tracking.search(vast, 3)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500
    assert made and made.name.isprintable() and len(client(tracking).get_run(made.run_id).data.params["p"]) <= 200


async def test_search_is_newest_first_and_names_what_there_is(tracking: Tracking) -> None:
    made = []
    for number in range(4):
        made.append(await ensure(tracking, f"p{number}", name=f"run-{number}"))
        await asyncio.sleep(0.01)  # MLflow's clock has milliseconds
    found = await tracking.search("digits", 3)
    assert [run.run_id for run in found] == made[:0:-1]
    assert (await tracking.experiments())[0].newest == "run-3"
    with pytest.raises(TrackingError, match=r"no experiment “nope”.*digits"):
        await tracking.search("nope", 3)


async def test_a_comparison_shows_what_differs(tracking: Tracking) -> None:
    one = await ensure(tracking, "p1", params={"lr": "0.1", "epochs": "3"})
    two = await ensure(tracking, "p2", params={"lr": "0.2", "epochs": "3", "model": "m"})
    client(tracking).log_metric(two, "val_loss", 0.5, step=1)
    await tracking.close(two, "FINISHED")
    table = compared([run for run_id in (two, one) if (run := await tracking.run(run_id))])
    assert [run.run_id for run in table.runs] == [two, one]
    assert table.params == {"lr": ("0.2", "0.1"), "model": ("m", None)}
    assert table.metrics == {"val_loss": (0.5, None)}
    assert table.seconds[0] is not None and table.seconds[1] is None


# -- when it does not answer --------------------------------------------------------------------------------------


@asynccontextmanager
async def hanging() -> AsyncIterator[int]:
    """The port of a server that takes requests and never answers."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        over.set()
        server.close()


@pytest.fixture
def answering() -> Iterator[Callable[[int, str], int]]:
    """Starts servers that give every request one answer; gives their ports."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, body: str) -> int:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1].server_address[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("login", ["bot:hun%24ter2", "user:secret"])
async def test_a_server_that_refuses_is_a_sentence_at_once(login: str) -> None:
    tracking = Tracking(f"http://{login}@127.0.0.1:9/")
    began = time.monotonic()
    with pytest.raises(TrackingUnavailable) as caught:
        await tracking.ping()
    assert time.monotonic() - began < 15  # MLflow's own patience is minutes
    said = str(caught.value)
    assert said.startswith("MLflow at http://127.0.0.1:9/ did not answer (the connection was refused). Check MLFLOW_")
    assert not any(part in said for part in ("hun", "ter2", "secret", "user", "bot"))


async def test_a_server_that_hangs_is_given_up_on_and_holds_up_nobody() -> None:
    await asyncio.to_thread(__import__, "mlflow")
    async with hanging() as port:
        tracking = Tracking(f"http://127.0.0.1:{port}")
        began = time.monotonic()
        failed = await asyncio.gather(
            tracking.ping(), ensure(tracking), ensure(tracking, "p2"), tracking.run("abcdef12"), return_exceptions=True
        )
        assert time.monotonic() - began < 30
    assert all(isinstance(one, TrackingUnavailable) and "it took too long" in str(one) for one in failed)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, "hunter2 broke \x1b[31m" + "x" * 5000, TrackingUnavailable),
        (200, "<html>a login page</html>", TrackingUnavailable),
        (403, '{"error_code": "PERMISSION_DENIED", "message": "no\\u001b[0m"}', TrackingError),
    ],
)
async def test_other_answers_are_sentences_too(
    status: int, body: str, kind: type, answering: Callable[[int, str], int]
) -> None:
    tracking = Tracking(f"http://bot:hunter2@127.0.0.1:{answering(status, body)}")
    with pytest.raises(TrackingError) as caught:
        await tracking.ping()
    said = str(caught.value)
    assert type(caught.value) is kind
    assert len(said) < 500 and said.isprintable() and "hunter2" not in said and tracking.shown in said


async def test_a_file_that_is_no_database_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(TrackingUnavailable, match=r"mlflow.db did not answer \(the file is no database\). Check that"):
        await Tracking(f"sqlite:///{tmp_path}/mlflow.db").ping()
    (tmp_path / "file").touch()
    with pytest.raises(TrackingUnavailable, match="did not answer"):
        await Tracking(f"sqlite:///{tmp_path}/file/mlflow.db").ping()


def test_the_first_use_says_nothing_and_tells_nobody(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys; from tools.tracking import Tracking; assert 'mlflow' not in sys.modules\n"
        f"asyncio.run(Tracking('sqlite:///{tmp_path}/mlflow.db').ping())\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled; assert is_telemetry_disabled()"
    )
    own = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_") and name != "CI"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=own, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert ENVIRONMENT["MLFLOW_DISABLE_TELEMETRY"] == "true"


# -- pictures -----------------------------------------------------------------------------------------------------


def looked_at(path: Path) -> Image.Image:
    picture = Image.open(path)
    picture.load()
    assert picture.size == (1200, 600) and [one.name for one in path.parent.iterdir()] == [path.name]
    return picture.convert("RGB")


def has(picture: Image.Image, colour: str) -> bool:
    wanted = tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return wanted in {pixel for _, pixel in picture.getcolors(2**20) or []}


def test_a_learning_curve_is_drawn_whole(tmp_path: Path) -> None:
    picture = looked_at(learning_curve("digits-1", EPOCHS, tmp_path / "curves" / "one.png"))
    assert has(picture, "#0072B2") and has(picture, "#D55E00")


def test_one_epoch_shows_too(tmp_path: Path) -> None:
    picture = looked_at(learning_curve("one", EPOCHS[:1], tmp_path / "one.png")).crop((200, 50, 420, 560))
    assert has(picture, "#0072B2") and has(picture, "#D55E00"), "a line of one point is invisible without a marker"


@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize("quality", ["val_accuracy", "val_perplexity"])
def test_few_and_many_epochs_of_either_kind_are_drawn(tmp_path: Path, count: int, quality: str) -> None:
    rows = [{"epoch": float(n), "train_loss": 2 / n, "val_loss": 3 / n, quality: 1 / n} for n in range(1, count + 1)]
    picture = looked_at(learning_curve("many", rows, tmp_path / "many.png"))
    left, right = picture.crop((0, 60, 600, 540)), picture.crop((600, 60, 1200, 540))
    assert has(left, "#0072B2") and has(left, "#D55E00") and has(right, "#D55E00")


def test_no_legend_lies_over_data(tmp_path: Path) -> None:
    rows = [{"epoch": float(n), "train_loss": 0.5, "val_loss": float(n % 2), "val_accuracy": n % 2} for n in range(30)]
    below = looked_at(learning_curve("restless", rows, tmp_path / "a" / "a.png")).crop((0, 570, 1200, 600))
    assert has(below, "#0072B2") and has(below, "#D55E00"), "it stands below the panels"
    series = {f"a-run-with-a-long-name-{n}": rows for n in range(8)}
    picture = looked_at(comparison_curve("restless", series, "val_accuracy", tmp_path / "b" / "b.png"))
    assert has(picture.crop((900, 0, 1200, 60)), "#0072B2"), "it stands at the right"


def test_names_are_no_mathematics_and_gaps_are_no_lines(tmp_path: Path) -> None:
    evil = "$\\frac{$ $^$" + "x" * 400
    looked_at(learning_curve(evil, EPOCHS, tmp_path / "a" / "a.png"))
    series = {evil: EPOCHS, "_hidden": EPOCHS[2:], "none": [], "other": [{"epoch": 1.0, "val_loss": 1.0}]}
    picture = looked_at(comparison_curve(evil, series, "val_accuracy", tmp_path / "b" / "b.png"))
    assert has(picture, "#0072B2") and has(picture, "#D55E00") and not has(picture, "#009E73")


async def test_pictures_drawn_at_once_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=20)
    draw = FigureCanvasAgg.print_figure

    def meet(*given: Any, **more: Any) -> None:
        draw(*given, **more)
        both.wait()  # each has written before either puts its picture into place

    monkeypatch.setattr(FigureCanvasAgg, "print_figure", meet)
    path = tmp_path / "same.png"
    await asyncio.gather(*(asyncio.to_thread(learning_curve, "same", EPOCHS, path) for _ in range(2)))
    looked_at(path)


async def test_an_end_is_told_once_the_trainer_has_closed_its_run_and_in_numbers_that_json_has(
    tracking: Tracking,
) -> None:
    runs, mlflow = TrackedRuns(tracking), client(tracking)
    run_id = await ensure(tracking)
    for name, value in {"val_loss": 0.5, "system/cpu": 3.0, "gap": math.nan}.items():
        mlflow.log_metric(run_id, name, value)
    assert await runs.end_of(run_id) is None
    mlflow.set_terminated(run_id, "FINISHED")
    end = await runs.end_of(run_id)
    assert end is not None and (end.phase, end.metrics) == (JobPhase.SUCCEEDED, {"val_loss": 0.5})
    assert abs(end.ended_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert await runs.end_of("0" * 32) is None
