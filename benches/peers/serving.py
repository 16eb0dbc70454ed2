"""How does Quern serve beside what people build today: Feast's server, and FastAPI with Feast and onnxruntime?

    serving.py [--only lookup|predict|size ...] [--turns N] [--seconds N] [--entities N] [--folder DIR] [--json FILE]

Both sides are given the same Parquet, the same ONNX files and the same requests, and must give the same answers before
they are timed. Then they take turns. Each turn is a closed loop of `wrk` (apt-get install wrk) from this machine, at
least --seconds long, and longer where that is less than four rounds of all connections. Medians of the turns are shown;
one refused or broken request ends the comparison. Feast needs redis-server, and gets a Python environment of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import serving_data
from compare import binary

from datasets import DEFAULT_FOLDER

HERE = Path(__file__).resolve().parent
PARTS = ("lookup", "predict", "size")
READY_SECONDS_MAX = 120
TURN_SECONDS_MAX, ROUNDS_MIN = 12, 4
IDLE_SECONDS_MAX = 15
WARM_CONNECTIONS = 4
BODIES, CHECKED = 512, 4
TOLERANCE = 1e-5
TABULAR = [f"v{view}" for view in range(serving_data.VIEWS)]
VECTORS = ["user_vectors", "item_vectors"]

QUERN, QUERN_REDIS = "quern", "quern, Redis"
FEAST, APP = "feast serve", "FastAPI + Feast"
APP_THREADS, APP_2 = f"{APP}, threads", f"{APP}, 2 workers"


@dataclass(frozen=True)
class Load:
    """One kind of request, asked over so many connections."""

    part: str
    path: str
    rows: int
    connections: int
    sides: tuple[str, ...]

    @property
    def name(self) -> str:
        """What a reader calls it."""
        what = f"{self.path}, {self.rows} row" if self.part == "predict" else f"look-up, {self.rows} × 60 features"
        connections = f"{self.connections} connection{'s' * (self.connections > 1)}"
        return f"{what}{'s' * (self.part == 'predict' and self.rows > 1)}, {connections}"


@dataclass(frozen=True)
class Goal:
    """How many times the requests/s of its peers, and which part of their p99, Quern is to reach."""

    part: str
    rows: int
    times: float
    p99: float | None = None


def sides_of(model: str, rows: int, connections: int) -> tuple[str, ...]:
    """Who predicts. What threads, workers and the store make of it shows on one model; the others have one pair."""
    if model != "trees100":
        return (QUERN, APP)
    if (rows, connections) in ((1, 32), (100, 8)):
        return (QUERN, QUERN_REDIS, APP, APP_THREADS, APP_2)
    return (QUERN, APP, APP_THREADS)


LOOKUP_PATH = "/get-online-features"
LOADS = [
    Load("lookup", LOOKUP_PATH, rows, connections, (QUERN, QUERN_REDIS, FEAST))
    for rows in (1, 100)
    for connections in (1, 32)
] + [
    Load("predict", model, rows, connections, sides_of(model, rows, connections))
    for model in serving_data.MODELS
    for rows, connections in ((1, 1), (1, 8), (1, 32), (1, 128), (100, 8), (100, 32))
]
GOALS = [
    Goal("lookup", 1, 80),
    Goal("lookup", 100, 200),
    Goal("predict", 1, 15, 20),
    Goal("predict", 100, 30, 20),
]


def main() -> int:
    """Measure and print; the result is the exit code."""
    parser = argparse.ArgumentParser(description="Compare look-ups and predictions by entity ID.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of each turn")
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="for Feast's Python, data, models and logs")
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    args = parser.parse_args()
    # So that what was started is stopped then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    for program in ("wrk", "redis-server"):
        if not shutil.which(program):
            raise SystemExit(f"{program} is missing: apt-get install {program}")
    python = feast_python(args.folder)
    folder, models = args.folder / "serving", args.folder / "serving_models"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    serving_data.write_models(models)
    serving_data.write_rows(folder, args.entities)

    started = time.monotonic()
    result: dict = {"machine": machine(), "versions": versions(python), "turns": args.turns, "seconds": args.seconds}
    with ExitStack() as stack:
        bench = Bench(folder, models, python, stack)
        result["size"] = bench.fill(args.entities)
        if "size" in args.only:
            show_size(result["size"])
        loads = [load for load in LOADS if load.part in args.only]
        servers = bench.serve({side for load in loads for side in load.sides})
        measured, speeds = [], {}
        for load in loads:
            measured.append(measure(load, servers, speeds, args, folder))
            show(measured[-1])
        for server in servers.values():
            server.note_peak()
    result |= {"loads": measured, "peak_mib": {name: server.peak_mib for name, server in servers.items()}}
    result["goals"] = goals(measured)
    result["total_s"] = time.monotonic() - started
    show_end(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


# --- what runs ---------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """One side: a process that answers, its children, and the Redis that it asks."""

    process: subprocess.Popen
    port: int
    redis: Server | None = None
    peak_mib: float = 0

    @cached_property
    def pids(self) -> list[int]:
        """The process and its children, and theirs, once it has answered: none of them starts others later."""
        parents = {pid: int(stat[1]) for pid in all_pids() if (stat := stat_of(pid))}
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def cpu_s(self) -> float:
        """How much CPU time this side has used."""
        ticks = sum(int(stat[11]) + int(stat[12]) for pid in self.pids if (stat := stat_of(pid)))
        return ticks / os.sysconf("SC_CLK_TCK") + (self.redis.cpu_s() if self.redis else 0)

    def note_peak(self) -> None:
        """Read the peak memory, without Redis; pages that processes share are counted for each."""
        lines = [line for pid in self.pids for line in read(f"/proc/{pid}/status").splitlines()]
        self.peak_mib = sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024

    def settle(self) -> None:
        """Wait until it does nothing: what a client no longer waits for may still be under way."""
        end = time.monotonic() + IDLE_SECONDS_MAX
        while time.monotonic() < end:
            before = self.cpu_s()
            time.sleep(0.1)
            if self.cpu_s() - before <= 0.02:
                return

    def post(self, path: str, body: dict) -> dict:
        """Ask once."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        if reply.status != 200:
            raise SystemExit(f"port {self.port}, {path}: {reply.status} {text[:500]}")
        return json.loads(text)


@dataclass
class Bench:
    """Both sides over the same files."""

    folder: Path
    models: Path
    python: Path
    stack: ExitStack
    redis: dict[str, Server] = field(default_factory=dict)

    def fill(self, entities: int) -> dict:
        """Materialize into every store; say how large each is afterwards, and how long it took."""
        result: dict = {"entities": entities}
        for side in (FEAST, QUERN_REDIS):
            port = free_port()
            command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
            self.redis[side] = self.start(f"redis of {side}", command, port)
        (self.folder / "feast").mkdir()
        (self.folder / "feast/feature_store.yaml").write_text(
            f"project: bench\nprovider: local\nregistry: {self.folder}/feast/registry.db\n"
            f"online_store:\n  type: redis\n  connection_string: 127.0.0.1:{self.redis[FEAST].port}\n"
            "offline_store:\n  type: dask\nentity_key_serialization_version: 3\n"
        )
        for side, online in ((QUERN, "rocksdb"), (QUERN_REDIS, f"redis://127.0.0.1:{self.redis[QUERN_REDIS].port}")):
            repository = self.repository(side)
            repository.mkdir()
            (repository / "quern.yaml").write_text(
                f"data: .quern\nonline: {online}\nonline_timeout: 10s\n"
                f"roots: [{json.dumps(str(self.folder))}, {json.dumps(str(self.models))}]\n"
            )
            (repository / "definitions.yaml").write_text(serving_data.definitions(self.folder, self.models))
            self.call(f"apply of {side}", [binary(), "apply", repository])

        feast = [self.python, HERE / "feast_repository.py", self.folder]
        for side, materialize in {
            FEAST: lambda views: self.call("feast materialize", [*feast, *views]),
            QUERN_REDIS: lambda views: self.materialize(QUERN_REDIS, views),
            QUERN: lambda views: self.materialize(QUERN, views),
        }.items():
            before, started = self.held(side), time.monotonic()
            told = materialize(TABULAR)
            seconds = json.loads(told)["seconds"] if side == FEAST else time.monotonic() - started
            result[side] = {"bytes": (self.held(side) - before) / entities, "materialize_s": seconds}
            materialize(VECTORS)
        return result

    def materialize(self, side: str, views: list[str]) -> str:
        """Bring these views into one of Quern's heads."""
        named = [argument for view in views for argument in ("--view", view)]
        return self.call(f"materialize of {side}", [binary(), "materialize", self.repository(side), *named])

    def held(self, side: str) -> int:
        """How many bytes a store holds: Redis its `used_memory`, RocksDB its table files and its log of writes."""
        if side == QUERN:
            files = (self.repository(side) / ".quern/head").iterdir()
            return sum(file.stat().st_size for file in files if file.suffix in (".sst", ".log"))
        with socket.create_connection(("127.0.0.1", self.redis[side].port)) as link:
            link.sendall(b"INFO memory\r\n")
            text = link.recv(65_536).decode()
        return int(text.partition("used_memory:")[2].split()[0])

    def serve(self, sides: set[str]) -> dict[str, Server]:
        """Start the server of each side."""
        servers = {}
        for side in sorted(sides):
            port = free_port()
            if side in (QUERN, QUERN_REDIS):
                command = [binary(), "serve", self.repository(side), "--listen", f"127.0.0.1:{port}"]
            elif side == FEAST:
                command = [self.python.parent / "feast", "-c", self.folder / "feast", "serve", "--port", port]
                command += ["--workers", 2, "--no-access-log", "--max-requests", 0]
            else:
                workers = 2 if side == APP_2 else 1
                app = f"feast_app:{'in_threads' if side == APP_THREADS else 'in_loop'}"
                command = [self.python, "-m", "uvicorn", app, "--app-dir", HERE, "--port", port]
                command += ["--workers", workers, "--no-access-log", "--log-level", "warning"]
            servers[side] = self.start(side, command, port)
            servers[side].redis = None if side == QUERN else self.redis[QUERN_REDIS if side == QUERN_REDIS else FEAST]
        return servers

    def repository(self, side: str) -> Path:
        """The folder of one of Quern's repositories."""
        return self.folder / ("quern_redis" if side == QUERN_REDIS else "quern_rocksdb")

    def environment(self) -> dict[str, str]:
        """What both sides are told: nothing of Quern's settings but where ONNX Runtime is, which is the same file."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("QUERN_")}
        told = {"BENCH_FOLDER": self.folder, "BENCH_MODELS": self.models, "PYTHONDONTWRITEBYTECODE": 1}
        library = next(
            self.python.parent.parent.glob("lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*")
        )
        return kept | {name: str(value) for name, value in (told | {"ORT_DYLIB_PATH": library}).items()}

    def log(self, name: str) -> Path:
        """Where a program's output goes."""
        return self.folder / f"{name.replace(' ', '_').replace(',', '')}.log"

    def call(self, name: str, command: list) -> str:
        """Run a program to its end; the last line is its answer."""
        with self.log(name).open("ab") as log:
            ended = subprocess.run(list(map(str, command)), stdout=log, stderr=log, env=self.environment(), check=False)
        if ended.returncode:
            raise SystemExit(f"{name} ended with {ended.returncode}:\n{self.log(name).read_text()[-3000:]}")
        return (self.log(name).read_text().splitlines() or [""])[-1]

    def start(self, name: str, command: list, port: int) -> Server:
        """Start a server and wait until it listens; it is stopped when all is over."""
        return self.stack.enter_context(
            running(name, list(map(str, command)), port, self.log(name), self.environment())
        )


@contextmanager
def running(name: str, command: list[str], port: int, log: Path, environment: dict[str, str]) -> Iterator[Server]:
    """Run a server in a process group of its own, which is ended in the end."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=environment, cwd=log.parent,
            start_new_session=True,
        )  # fmt: skip
    try:
        end = time.monotonic() + READY_SECONDS_MAX
        while not listens(port):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{name} does not listen:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield Server(process, port)
    finally:
        for how in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, how)
                process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def feast_python(folder: Path) -> Path:
    """Return Feast's Python; makes the environment where there is none of these versions."""
    wanted = HERE / "requirements-feast.txt"
    digest = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()
    home, stamp = folder / "feast", folder / "feast.stamp"
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"installing Feast into {home} (a minute or two; about 700 MB)", flush=True)
        stamp.unlink(missing_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        pip = [home / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", wanted], check=True)
        stamp.write_text(digest)
    return home / "bin/python"


def all_pids() -> list[int]:
    """Every process of the machine."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def stat_of(pid: int) -> list[str]:
    """What the kernel tells of a process, from its state on; nothing if it is gone."""
    return read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def read(path: str) -> str:
    """Return a file's text, and none where a process is gone."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def listens(port: int) -> bool:
    """Whether somebody listens on the port."""
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0


# --- measuring ---------------------------------------------------------------------------------------------------


def measure(load: Load, servers: dict[str, Server], speeds: dict, args: argparse.Namespace, folder: Path) -> dict:
    """Compare the answers, then let the sides take turns; `speeds` are the requests/s of those that are warm."""
    if load.part == "lookup":
        path, bodies, compare = load.path, serving_data.lookups(args.entities, load.rows, BODIES), same_features
    else:
        path = f"/v1/models/{load.path}:predict"
        service = serving_data.MODELS[load.path]
        bodies, compare = serving_data.predictions(service, args.entities, load.rows, BODIES), same_predictions
    asked = list(bodies)
    for body in asked[:CHECKED]:
        first, *others = (servers[side].post(path, body) for side in load.sides)
        for side, other in zip(load.sides[1:], others, strict=True):
            compare(first, other, f"{load.name}: {load.sides[0]} and {side}")
    file = folder / "bodies.jsonl"
    file.write_text("".join(json.dumps(body) + "\n" for body in asked))

    seconds = {}
    for side in load.sides:
        kind = (side, load.path, load.rows)
        if kind not in speeds:
            speeds[kind] = turn(servers[side], file, path, WARM_CONNECTIONS, 1)["requests_per_s"]
        rounds = ROUNDS_MIN * load.connections / max(speeds[kind], 1)
        seconds[side] = max(args.seconds, min(math.ceil(rounds), TURN_SECONDS_MAX))
    turns: dict[str, list[dict]] = {side: [] for side in load.sides}
    for _ in range(args.turns):
        for side in load.sides:
            turns[side].append(turn(servers[side], file, path, load.connections, seconds[side]))
    if silent := [side for side, seen in turns.items() if not all(t["requests"] for t in seen)]:
        raise SystemExit(f"{load.name}: not one answer in a turn: {', '.join(silent)}")
    sides = {side: {key: statistics.median(t[key] for t in seen) for key in seen[0]} for side, seen in turns.items()}
    return {"name": load.name, **asdict(load), "sides": sides, "ratios": ratios(sides), "all_turns": turns}


def turn(server: Server, bodies: Path, path: str, connections: int, seconds: int) -> dict:
    """Ask one side for some seconds."""
    before = server.cpu_s()
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", HERE / "load.lua"]
    command += [f"http://127.0.0.1:{server.port}", "--", bodies, path]
    environment = os.environ | {"CONNECTIONS": str(connections)}
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    cpu = server.cpu_s() - before
    server.settle()
    last = (ended.stdout.strip().splitlines() or [""])[-1]
    if ended.returncode or not last.startswith("{"):
        raise SystemExit(f"wrk ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    seen = json.loads(last)
    if seen["refused"] or seen["broken"] or seen["late"]:
        raise SystemExit(f"{path}: not every request was answered: {last}")
    return {
        "requests_per_s": seen["requests"] / seen["seconds"],
        "p50_us": seen["p50_us"],
        "p99_us": seen["p99_us"],
        "cpu_us": max(cpu, 0.01) / max(seen["requests"], 1) * 1e6,
        "requests": seen["requests"],
    }


def ratios(sides: dict[str, dict]) -> dict[str, dict[str, float]]:
    """How many times better each of Quern's sides is than each peer: all of these are to be large."""
    return {
        f"{ours} beside {peer}": {
            "requests_per_s": sides[ours]["requests_per_s"] / sides[peer]["requests_per_s"],
            **{key: sides[peer][key] / sides[ours][key] for key in ("p50_us", "p99_us", "cpu_us")},
        }
        for ours in sides
        for peer in sides
        if ours in (QUERN, QUERN_REDIS) and peer not in (QUERN, QUERN_REDIS)
    }


def same_features(ours: dict, theirs: dict, what: str) -> None:
    """Every feature has the same values and statuses."""

    def columns(reply: dict) -> dict:
        named = zip(reply["metadata"]["feature_names"], reply["results"], strict=True)
        return {name: (result["values"], result["statuses"]) for name, result in named}

    if columns(ours) != columns(theirs) or len(ours["results"]) != 61:
        raise SystemExit(f"{what} do not agree on features")


def same_predictions(ours: dict, theirs: dict, what: str) -> None:
    """Every prediction is the same, within the tolerance."""
    pairs = list(zip(ours["predictions"], theirs["predictions"], strict=True))
    if not pairs or not all(abs(a - b) <= TOLERANCE for a, b in pairs):
        raise SystemExit(f"{what} do not agree on predictions: {pairs[:3]}")


# --- showing -----------------------------------------------------------------------------------------------------


def show(seen: dict) -> None:
    """Print one load: a line for each side, then what is how many times better."""
    print(f"\n{seen['name']:<50}{'requests/s':>11}{'p50 ms':>10}{'p99 ms':>10}{'CPU µs':>10}")
    for side, figures in seen["sides"].items():
        p50, p99 = figures["p50_us"] / 1e3, figures["p99_us"] / 1e3
        print(f"  {side:<48}{figures['requests_per_s']:>11,.0f}{p50:>10.2f}{p99:>10.2f}{figures['cpu_us']:>10,.0f}")
    for pair, times in seen["ratios"].items():
        numbers = [f"{times[key]:.1f} ×" for key in ("requests_per_s", "p50_us", "p99_us", "cpu_us")]
        print(f"  {pair:<48}{numbers[0]:>11}{numbers[1]:>10}{numbers[2]:>10}{numbers[3]:>10}", flush=True)


def show_size(size: dict) -> None:
    """Print what an entity takes in each store."""
    print(f"\n{size['entities']:,} entities × 60 features{'bytes/entity':>24}{'materialized/s':>18}")
    for side, where in ((FEAST, "Feast, Redis"), (QUERN_REDIS, "Quern, Redis"), (QUERN, "Quern, RocksDB's disk")):
        rate = size["entities"] * len(TABULAR) / size[side]["materialize_s"]
        print(f"  {where:<40}{size[side]['bytes']:>11,.0f}{rate:>18,.0f}", flush=True)


def goals(measured: list[dict]) -> list[dict]:
    """For each goal, kind of request and pair of sides, what was reached at each number of connections."""
    reached: dict[tuple, dict] = {}
    for seen in measured:
        goal = next(goal for goal in GOALS if (goal.part, goal.rows) == (seen["part"], seen["rows"]))
        for pair, times in seen["ratios"].items():
            if goal.part == "predict" and pair.startswith(QUERN_REDIS):
                continue
            line = {**asdict(goal), "path": seen["path"], "pair": pair, "seen": {}}
            reached.setdefault((seen["path"], goal.rows, pair), line)["seen"][str(seen["connections"])] = times
    return list(reached.values())


def show_end(result: dict) -> None:
    """Print what was wanted and what was reached, and the memory."""
    if result["goals"]:
        print(f"\n{'goals':<76}{'wanted':>8}  seen, by connections")
    for goal in result["goals"]:
        for kind, key, wanted in (("requests/s", "requests_per_s", goal["times"]), ("p99", "p99_us", goal["p99"])):
            if wanted:
                name = f"{goal['path']} × {goal['rows']}, {goal['pair']}: {kind}"
                seen = ", ".join(f"{connections}: {times[key]:.1f} ×" for connections, times in goal["seen"].items())
                print(f"  {name:<74}{f'{wanted:g} ×':>8}  {seen}")
    for side, peak in result["peak_mib"].items():
        print(f"{'peak memory, ' + side:<42}{peak:>8,.0f} MiB")
    print(f"{result['total_s']:.0f} s in all, {result['machine']}, {result['versions']}", flush=True)


def machine() -> str:
    """Say what this was measured on."""
    model = next((line for line in read("/proc/cpuinfo").splitlines() if line.startswith("model name")), ": unknown")
    return f"{os.cpu_count()} × {model.partition(': ')[2]}, load {os.getloadavg()[0]:.1f} at the start"


def versions(python: Path) -> str:
    """Say what was compared."""
    names = ("feast", "fastapi", "uvicorn", "onnxruntime", "redis")
    ask = f"from importlib.metadata import version as v; print(*(f'{{n}} {{v(n)}}' for n in {names}), sep=', ')"
    commands = ([python, "-c", ask], [binary(), "--version"], ["redis-server", "--version"])
    asked = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() for command in commands]
    return f"{asked[0]}; {asked[1]}; {' '.join(asked[2].split()[:3])}"


if __name__ == "__main__":
    sys.exit(main())
