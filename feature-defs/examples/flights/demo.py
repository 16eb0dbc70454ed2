"""The main job, end to end, on real data: from flights on disk to a model that answers by tail number.

Run it with `make demo`. It prints what it does and what came of it, and ends with exit code 1 unless every value that
was served equals the value that the model was trained on, bit for bit.
"""

from __future__ import annotations

import datetime as dt
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave the cores to the server

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import quern
import train

HERE = Path(__file__).resolve().parent
SERVICE, MODEL = "arrival_delay_v1", "arrival_delay"
MODEL_FILE = HERE / "models" / f"{SERVICE}.onnx"
MODEL_YAML = f"""# Written by demo.py.
kind: Model
name: {MODEL}
description: How likely a flight is to arrive more than 15 minutes late
versions:
  - {{version: "1", path: models/{MODEL_FILE.name}, service: {SERVICE}}}
"""
JOIN_KEYS = ["tailnum", "carrier", "origin", "dest"]
ASKED = [*JOIN_KEYS, "event_timestamp", "distance", "departs_at"]  # what a request brings; the server knows the rest
KNOWN_TO_CALLER = ["distance", "local_hour", "weekday", "from_ewr", "from_lga"]  # what needs no history
WINDOWS = ("_1h", "_3h", "_1d", "_7d", "_30d")

CUTOFF = dt.datetime(2013, 12, 20, 21, tzinfo=dt.timezone.utc)  # the Friday before Christmas, 4 p.m. in New York
HEAD_ROWS, HISTORY_ROWS = 2_000, 500
REQUEST_ROWS = 250
READY_SECONDS_MAX = 120


class Report:
    """Numbered steps on the terminal, each with the time it took."""

    def __init__(self) -> None:
        self._number = 0
        self._bold = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step; its lines follow."""
        self._number += 1
        begin, end = self._bold
        print(f"\n{begin}{self._number:>2}  {title}{end}", flush=True)
        started = time.perf_counter()
        yield
        print(f"      {time.perf_counter() - started:.1f} s", flush=True)

    def line(self, text: str = "") -> None:
        """Say something about the step."""
        for part in text.splitlines() or [""]:
            print(f"      {part}".rstrip(), flush=True)


# A row of the spine is a flight an hour before it leaves. Where another one landed in that very minute it counts, and
# is not the event that the row stands for; docs/tutorial.md has more of it.
warnings.filterwarnings("ignore", message=r".*became visible at their own `event_timestamp`")


def main() -> int:
    """Tell the story; the result is the exit code."""
    report = Report()
    print("Quern on the 336,776 flights that left New York in 2013: will this one arrive late?")

    with report.step("Prepare the data: local clock times become instants (prepare.py)"):
        report.line(run([sys.executable, HERE / "prepare.py"]))
        start_afresh()
    with report.step("Apply the definitions: entities, sources, views and a feature service (definitions/)"):
        report.line(run([binary(), "apply", HERE]))
    with report.step(f"Materialize the head up to {CUTOFF:%d %B, %H:%M} UTC: the latest of each key, ready to serve"):
        report.line(run([binary(), "materialize", HERE, "--to", rfc3339(CUTOFF)]))

    with report.step("Serve"):
        server = Server()
        report.line(f"{server.url}, ready; log in {shown(server.log)}")
    try:
        with quern.Client(server.url) as client:
            return with_server(report, client)
    finally:
        server.stop()


def with_server(report: Report, client: quern.Client) -> int:
    """Tell what happens while the server runs."""
    spine = pq.read_table(HERE / "data/spine.parquet")

    with report.step("Pull the training set over Arrow Flight: for each flight, what was known an hour before it"):
        started = time.perf_counter()
        table = client.training_set(SERVICE, spine)
        seconds = time.perf_counter() - started
        features = [column.name for column in client.service(SERVICE).outputs]
        report.line(f"{table.num_rows:,} rows x {len(features)} features in {seconds:.2f} s: "
                    f"{table.num_rows / seconds:,.0f} rows/s")  # fmt: skip
        if not table.select(spine.column_names).cast(spine.schema).equals(spine):
            raise SystemExit("the training set does not begin with the spine as it was sent")

    with report.step("Train gradient-boosted trees on January to September, judge them on October to December"):
        baseline = train.train(table, KNOWN_TO_CALLER)
        without_windows = train.train(table, [name for name in features if not name.endswith(WINDOWS)])
        trained = train.train(table, features)
        report.line(f"{trained.train_rows:,} flights to learn from, {trained.test_rows:,} to be judged on")
        report.line(f"AUC {baseline.auc:.3f} on what the caller knows: {', '.join(KNOWN_TO_CALLER)}")
        report.line(f"AUC {without_windows.auc:.3f} with the history that Quern adds: the latest rows")
        report.line(f"AUC {trained.auc:.3f} with windows as well: the last 1 and 3 hours, 1, 7 and 30 days")

    with report.step("Export the model to ONNX and apply it, while the server runs"):
        train.export(trained, MODEL_FILE)
        difference = train.export_difference(trained, MODEL_FILE, table)
        report.line(f"{shown(MODEL_FILE)}, {MODEL_FILE.stat().st_size // 1024:,} KiB; "
                    f"differs from the learner by {difference:.0e} at most")  # fmt: skip
        (MODEL_FILE.parent / "model.yaml").write_text(MODEL_YAML)
        report.line(run([binary(), "apply", HERE]))

    with report.step("Predict by entity ID over HTTP: flights that leave in the two hours after that Friday's 4 p.m."):
        predict_some(report, client, spine)

    with report.step("Compare what is served with what was trained on: values and predictions, bit for bit"):
        different = parity(report, client, spine, features)

    print(NEXT.format(here=shown(HERE)))
    if different:
        print(f"\n{different:,} values differ between serving and training: this is a fault of Quern.")
        return 1
    return 0


# --- predictions and parity ------------------------------------------------


def predict_some(report: Report, client: quern.Client, spine: pa.Table) -> None:
    """Show what a caller sends and gets, beside what came to pass."""
    soon = pc.and_(
        pc.greater(spine["departs_at"], pa.scalar(CUTOFF)),
        pc.less_equal(spine["departs_at"], pa.scalar(CUTOFF + dt.timedelta(hours=2))),
    )
    flights = at_time(spine.filter(soon), CUTOFF)
    started = time.perf_counter()
    scores = client.predict(MODEL, flights.select(ASKED))
    seconds = time.perf_counter() - started
    rows = sorted(zip(scores, flights.to_pylist(), strict=True), key=lambda row: -row[0])
    report.line("plane    flight   route        late?   what came to pass")
    for score, flight in [*rows[:4], *rows[-4:]]:
        delay = flight["arr_delay"]
        passed = "never arrived" if delay is None else f"{abs(delay)} minutes {'late' if delay > 0 else 'early'}"
        report.line(f"{flight['tailnum'] or '?':<8} {flight['carrier']} {flight['flight']:<5} "
                    f"{flight['origin']} - {flight['dest']}    {score:>4.0%}   {passed}")  # fmt: skip
    report.line(f"the likeliest and the least likely of {len(rows)} flights, in one request of {seconds * 1000:.0f} ms")


def at_time(spine: pa.Table, when: dt.datetime) -> pa.Table:
    """Ask for every row at one moment."""
    index = spine.column_names.index("event_timestamp")
    column = pa.array([when] * spine.num_rows, pa.timestamp("us", "UTC"))
    return spine.set_column(index, "event_timestamp", column)


def parity(report: Report, client: quern.Client, spine: pa.Table, features: list[str]) -> int:
    """Count what differs between serving and training; 0 is the law."""
    pick = random.Random(2013)
    everyone = range(spine.num_rows)
    past = np.flatnonzero(pc.less(spine["event_timestamp"], pa.scalar(CUTOFF)).to_numpy()).tolist()
    cases = [
        ("from the head, at the time it holds", at_time(spine.take(pick.sample(everyone, HEAD_ROWS)), CUTOFF)),
        ("from history, at any time before", spine.take(pick.sample(past, HISTORY_ROWS))),
    ]
    total = 0
    for title, rows in cases:
        compared, different, seconds = compare(client, rows.select(ASKED), features)
        total += different
        report.line(f"{title}: {rows.num_rows:,} entities, {compared:,} values, {different} different; "
                    f"{rows.num_rows / seconds:,.0f} predictions/s, {REQUEST_ROWS} to a request")  # fmt: skip
    return total


def compare(client: quern.Client, asked: pa.Table, features: list[str]) -> tuple[int, int, float]:
    """Compare look-ups and predictions with the training set; returns values compared, values different, seconds."""
    training = client.training_set(SERVICE, asked)
    wanted = {name: bits(training[name].to_pylist()) for name in features}
    wanted_scores = train.scores(train.session(MODEL_FILE), train.matrix(training, features)).tolist()

    looked_up: dict[str, list[object]] = {name: [] for name in features}
    served: dict[str, list[object]] = {name: [] for name in features}
    scores: list[float] = []
    seconds = 0.0
    for start in range(0, asked.num_rows, REQUEST_ROWS):
        part = asked.slice(start, REQUEST_ROWS)
        online = client.get_online_features(SERVICE, part).to_dict()
        started = time.perf_counter()
        prediction = client.predict(MODEL, part, with_features=True)
        seconds += time.perf_counter() - started
        vectors = prediction.features.to_dict()
        for name in features:
            looked_up[name] += online[name]
            served[name] += vectors[name]
        scores += prediction.predictions

    pairs = [(wanted[name], bits(got[name])) for got in (looked_up, served) for name in features]
    pairs.append((bits(wanted_scores), bits([float(np.float32(score)) for score in scores])))
    compared = sum(len(want) for want, _ in pairs)
    return compared, sum(a != b for want, got in pairs for a, b in zip(want, got, strict=True)), seconds


def bits(values: list[object]) -> list[object]:
    """Values such that equal means the same bits: 0.0 is not -0.0, and a whole number is not a float."""
    return [value.hex() if isinstance(value, float) else (type(value), value) for value in values]


# --- the binary ------------------------------------------------


class Server:
    """`quern serve` on a free port, until it is stopped."""

    def __init__(self) -> None:
        with closing(socket.socket()) as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = HERE / "data/server.log"
        with self.log.open("wb") as log:
            command = [binary(), "serve", HERE, "--listen", f"127.0.0.1:{port}"]
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment())
        give_up = time.monotonic() + READY_SECONDS_MAX
        while not ready(self.url):
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.stop()
                raise SystemExit(f"the server is not ready:\n{self.log.read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in order; it gets half a minute to finish what it has begun."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def ready(url: str) -> bool:
    """Whether a server answers there and says that it is ready."""
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=1)) as connection:
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False


def binary() -> Path:
    """Where cargo puts the server, unless QUERN_BIN says otherwise."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or Path.home() / ".cache/quern/target")
    return Path(os.environ.get("QUERN_BIN") or target / "debug/quern")


def environment() -> dict[str, str]:
    """Ours, with ONNX Runtime, whose shared library lies in its Python package."""
    return {"ORT_DYLIB_PATH": str(Path(onnxruntime.__file__).parent / "capi")} | os.environ


def run(command: list[str | Path]) -> str:
    """Run a command; what it prints is the result, and its failure ours."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout.rstrip()


def start_afresh() -> None:
    """Remove what an earlier run left, so that the story begins at its beginning."""
    running = HERE / ".quern/server.json"
    if running.exists():
        url = json.loads(running.read_text())["url"]
        if ready(url):
            raise SystemExit(f"a server at {url} has this example open; end it first")
    shutil.rmtree(HERE / ".quern", ignore_errors=True)
    shutil.rmtree(HERE / "models", ignore_errors=True)


def rfc3339(time: dt.datetime) -> str:
    """Write a time for the command line."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def shown(path: Path) -> str:
    """A path as short as it can be."""
    return os.path.relpath(path)


NEXT = """
Where to go next
      make serve                   serves this again, on 127.0.0.1:7400; then ask it, for example:

      curl -s 127.0.0.1:7400/v1/models/arrival_delay:predict -d '{{"with_features": true, "instances": [{{
          "tailnum": "N14228", "carrier": "UA", "origin": "EWR", "dest": "IAH", "distance": 1400,
          "departs_at": "2013-12-20T22:00:00Z", "event_timestamp": "2013-12-20T21:00:00Z"}}]}}'

      {here}/definitions
                                   what was defined: entities, sources, views and the service
      {here}/check_asof.py
                                   the same join in DuckDB's SQL, compared value for value
      docs/tutorial.md             this demo, step by step"""


if __name__ == "__main__":
    sys.exit(main())
