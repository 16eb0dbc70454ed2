"""Do models of XGBoost and CatBoost go live by one call, and say there what they said in Python?

They are trained by `exporters_program.py`, in an environment of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from export_repository import live, repository_at, spine, training_sets

SECONDS_MAX = 300
SDK = Path(__file__).parent.parent


def exporters_python() -> Path:
    """The Python of the environment that `setup.sh all` makes."""
    cache = os.environ.get("QUERN_CACHE") or Path.home() / ".cache/quern"
    found = Path(cache) / "exporters/bin/python"
    if not found.is_file():
        pytest.fail(f"{found} is missing: run ./setup.sh all", pytrace=False)
    return found


@pytest.mark.heavy
def test_xgboost_and_catboost(tmp_path: Path) -> None:
    root = repository_at(tmp_path)
    for service, table in training_sets(root).items():
        with pa.ipc.new_file(root / f"{service}.arrow", table.schema) as out:
            out.write_table(table)
    done = subprocess.run(
        [exporters_python(), Path(__file__).with_name("exporters_program.py"), root],
        env={**os.environ, "PYTHONPATH": str(SDK)},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert "['city'] are categories or texts: encode them before" in seen["refused"]["cat"]
    assert "use scikit-learn's OrdinalEncoder" in seen["refused"]["xgb"]
    with live(root) as client:
        asked = pa.Table.from_pandas(spine().drop(columns="late"), preserve_index=False)
        for name, expected in seen["says"].items():
            # The last output is the probability of each class, or the number that a regressor gives.
            said = client.predict_batch(name, asked, as_of=True)
            got = np.stack([np.hstack([row]) for row in said.column(said.num_columns - 1).to_pylist()])
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4, err_msg=name)
