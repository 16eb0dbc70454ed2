"""Does a program written for Feast run against Quern, with Feast's own SDK unchanged?

The program is `feast_program.py`. Its online store is `type: remote`, and Quern takes the place of the
feature server, over TLS and for who has a key.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import quern
from conftest import LANDINGS, run, serve
from secured import SETTINGS, Authority

SECONDS_MAX = 300
DEFINITIONS = """
kind: Entity
name: plane
join_keys: [{name: tailnum, type: string}]
---
kind: Source
name: landings
batch: {format: csv, path: data/landings.csv}
push: true
event_timestamp: landed_at
created_timestamp: loaded_at
columns:
  - {name: tailnum, type: string}
  - {name: landed_at, type: timestamp}
  - {name: loaded_at, type: timestamp}
  - {name: arr_delay, type: float64}
  - {name: legs, type: int64}
---
kind: FeatureView
name: plane_history
entities: [plane]
source: landings
features: [arr_delay, legs]
---
kind: FeatureService
name: delays
features: [plane_history]
---
kind: Role
name: feast
members: [{key: feast}]
allow: [{read: [{view: plane_history}], push: [landings]}]
"""


def feast_python() -> Path:
    """The Python of the environment that `setup.sh` makes for Feast."""
    cache = os.environ.get("QUERN_CACHE") or Path.home() / ".cache/quern"
    found = Path(cache) / "feast/bin/python"
    if not found.is_file():
        pytest.fail(f"{found} is missing: run ./setup.sh", pytrace=False)
    return found


def test_feast_reads_and_pushes(tmp_path: Path) -> None:
    root, feast = tmp_path / "quern", tmp_path / "feast"
    (root / "data").mkdir(parents=True)
    feast.mkdir()
    (root / "quern.yaml").write_text(SETTINGS)
    authority = Authority.at(root)
    (root / "definitions.yaml").write_text(DEFINITIONS)
    (root / "data/landings.csv").write_text(LANDINGS)
    run("apply", root)
    run("materialize", root)
    program = Path(__file__).parent / "feast_program.py"
    key = run("key", "new", root, "feast").strip()
    with serve(root, authority.tls) as url, quern.Client(url, token=key, ca=authority.ca) as client:
        done = subprocess.run(
            [feast_python(), program, url, authority.ca, feast],
            capture_output=True,
            text=True,
            env=dict(os.environ, FEAST_USAGE="False", QUERN_TOKEN=key),
            timeout=SECONDS_MAX,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        read = json.loads(done.stdout)
        ours = client.get_online_features("delays", {"tailnum": ["N1", "N2", "N9"]})

    planes = ["N1", "N2", "N9"]
    assert read["service"] == {"tailnum": planes, "arr_delay": [0.1, None, None], "legs": [2, 7, None]}
    assert read["features"] == {"tailnum": planes, "plane_history__legs": [2, 7, None]}
    # N2's newest row is the pushed one; N9 was not known before, and its delay is null.
    assert read["pushed"] == {"tailnum": planes, "arr_delay": [0.1, 0.1, None], "legs": [2, 8, 1]}
    # Written later, but older: nothing changes.
    assert read["late"] == read["pushed"]
    assert ours.to_dict() == read["pushed"]
    assert ours.statuses["arr_delay"] == ["PRESENT", "PRESENT", "NULL_VALUE"]
