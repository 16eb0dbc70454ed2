"""Are `exp`, `sin` and their like correctly rounded, and the same on every processor?

The C library has code for processors with fused multiply-add and for those without, which rounds otherwise now and
then. `GLIBC_TUNABLES` has it take the one or the other, as two machines would.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import mpmath
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import quern
from conftest import run, serve

SEED = 20130101
ROWS = 4000
# What is called, the columns that it is called with, and the exact value.
FUNCTIONS: dict[str, tuple[str, Callable[..., mpmath.mpf]]] = {
    "acos(u)": ("u", mpmath.acos),
    "acosh(1 + w)": ("w", lambda w: mpmath.acosh(mpmath.mpf(1 + float(w)))),
    "asin(u)": ("u", mpmath.asin),
    "asinh(x)": ("x", mpmath.asinh),
    "atan(x)": ("x", mpmath.atan),
    "atan2(u, x)": ("ux", mpmath.atan2),
    "atanh(u)": ("u", mpmath.atanh),
    "cbrt(w)": ("w", mpmath.cbrt),
    "cos(x)": ("x", mpmath.cos),
    "cosh(x)": ("x", mpmath.cosh),
    "cot(x)": ("x", mpmath.cot),
    "exp(x)": ("x", mpmath.exp),
    "ln(w)": ("w", mpmath.log),
    "log(w)": ("w", mpmath.log10),
    "log(3.5, w)": ("w", lambda w: mpmath.log(w, mpmath.mpf("3.5"))),
    "log10(w)": ("w", mpmath.log10),
    "log2(w)": ("w", lambda w: mpmath.log(w, 2)),
    "power(w, u)": ("wu", mpmath.power),
    "sin(x)": ("x", mpmath.sin),
    "sinh(x)": ("x", mpmath.sinh),
    "sqrt(w)": ("w", mpmath.sqrt),
    "tan(x)": ("x", mpmath.tan),
    "tanh(x)": ("x", mpmath.tanh),
}
# In units in the last place: correctly rounded, but where there is more than one step.
ULPS_MAX = 0.5
QUOTIENT_MAX = 2.0
WITHOUT_FMA = "glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2,-FMA_Usable,-AVX2_Usable"


def name(call: str) -> str:
    """A feature's name for a call."""
    return "f_" + "".join(letter if letter.isalnum() else "_" for letter in call)


@pytest.fixture(scope="module")
def points() -> pa.Table:
    """Numbers of every size, and those where something happens."""
    random = np.random.default_rng(SEED)
    x = random.choice([-1.0, 1.0], ROWS) * 10 ** random.uniform(-9, 2.84, ROWS)
    u = random.uniform(-1, 1, ROWS)
    w = 10 ** random.uniform(-300, 300, ROWS)
    x[:6], w[:6] = [0.0, 1.0, -1.0, 0.5, math.pi, 709.0], [1.0, 2.0, 10.0, 1000.0, 0.1, 1e-300]
    u[:3] = [0.0, 1.0, -1.0]
    return pa.table(
        {
            "id": np.arange(ROWS),
            "at": pa.array([0] * ROWS, pa.timestamp("us", tz="UTC")),
            "x": x,
            "u": u,
            "w": w,
        }
    )


@pytest.fixture(scope="module")
def repository(points: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature for each function, of the points, and for each the same where the service derives it."""
    root = tmp_path_factory.mktemp("functions")
    pq.write_table(points, root / "points.parquet")
    print(f"seed {SEED}", file=sys.stderr)
    features = [{"name": name(call), "expr": call} for call in FUNCTIONS]
    columns = [{"name": column} for column in ("x", "u", "w")]
    derived = [{"name": f"d{name(call)[1:]}", "expr": call} for call in FUNCTIONS]
    windows = [{"name": "p", "function": "approx_percentile", "of": "x", "percentile": 0.5, "windows": ["1d"]}]
    view = {"kind": "FeatureView", "entities": ["point"], "source": "points"}
    documents = [
        {"kind": "Entity", "name": "point", "join_keys": [{"name": "id", "type": "int64"}]},
        {
            "kind": "Source",
            "name": "points",
            "batch": {"format": "parquet", "path": "points.parquet"},
            "event_timestamp": "at",
        },
        view | {"name": "values", "features": columns + features},
        view | {"name": "windows", "aggregations": windows},
        {
            "kind": "FeatureService",
            "name": "all",
            "features": [{"view": "values"}, {"view": "windows"}],
            "derived": derived,
        },
    ]
    (root / "definitions.yaml").write_text("\n---\n".join(map(json.dumps, documents)))
    run("apply", root)
    return root


def trained(root: Path, out: str) -> pa.Table:
    """The training set of all points, a second after they were there."""
    points = pq.read_table(root / "points.parquet", columns=["id"])
    later = pa.array([1_000_000] * ROWS, pa.timestamp("us", tz="UTC"))
    pq.write_table(points.append_column("event_timestamp", later), root / "spine.parquet")
    run("train", root, "all", "--spine", root / "spine.parquet", "--out", root / out)
    return pq.read_table(root / out)


def test_they_are_as_near_to_the_exact_value_as_is_promised(repository: Path, points: pa.Table) -> None:
    table = trained(repository, "exact.parquet")
    mpmath.mp.prec = 260
    far = {}
    for call, (columns, exact) in FUNCTIONS.items():
        rows = zip(*(points[column].to_pylist() for column in columns), strict=True)
        far[call] = max(ulps(exact, row, found) for row, found in zip(rows, table[name(call)].to_pylist(), strict=True))
    print({call: round(worst, 2) for call, worst in far.items()}, file=sys.stderr)
    assert all(worst <= (QUOTIENT_MAX if call == "log(3.5, w)" else ULPS_MAX) for call, worst in far.items()), far
    for call in FUNCTIONS:
        assert table[name(call)].equals(table[f"d{name(call)[1:]}"]), f"{call} in a view and derived"


def ulps(exact: Callable[..., mpmath.mpf], row: tuple[float, ...], found: float) -> float:
    """How far a value is from the exact one; where that is infinite, so must it be."""
    try:
        wanted = exact(*map(mpmath.mpf, row))
    except ZeroDivisionError:
        wanted = mpmath.inf
    if not math.isfinite(float(wanted)):
        return 0.0 if abs(found) == math.inf else math.inf
    return float(abs(mpmath.mpf(found) - wanted) / mpmath.mpf(math.ulp(float(wanted))))


def test_what_one_processor_trains_another_serves(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = trained(repository, "here.parquet")
    monkeypatch.setenv("GLIBC_TUNABLES", WITHOUT_FMA)
    there = trained(repository, "there.parquet")
    differing = [column for column in here.column_names if bits(here[column]) != bits(there[column])]
    assert differing == [], "a training set hangs on the processor"
    assert here.schema.metadata[b"quern.functions"] == there.schema.metadata[b"quern.functions"]
    run("materialize", repository, "--to", "1970-01-01T00:00:01Z")
    monkeypatch.delenv("GLIBC_TUNABLES")
    with serve(repository) as address, quern.Client(address) as client:
        assert client.definitions().functions.encode() == here.schema.metadata[b"quern.functions"]
        names = [column.name for column in client.service("all").outputs]
        ids = here["id"].to_pylist()
        served = client.get_online_features("all", [{"id": key} for key in ids]).to_dict()
        for column in names:
            # The window is as of now, where no point lies any more.
            if not column.startswith("p_"):
                # JSON has no infinity.
                said = [x if math.isfinite(x) else None for x in here[column].to_pylist()]
                assert served[column] == said, column


def bits(column: pa.ChunkedArray) -> bytes:
    """The values, and which are there."""
    values = column.combine_chunks()
    return values.is_valid().buffers()[1].to_pybytes() + values.fill_null(0).buffers()[-1].to_pybytes()
