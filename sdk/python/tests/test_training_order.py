"""Does a model that was trained on the columns that a training set names get the very same matrix when it is served?

The service gives out a request column between its features, so that the spine's order is not the service's.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pyarrow.flight as flight
import pyarrow.parquet as pq
from skl2onnx import to_onnx
from sklearn.linear_model import LinearRegression

import quern
from conftest import DEFINITIONS, LANDINGS, binary, environment, run, serve

OUTPUTS = ["legs", "distance", "last_delay"]
SERVICE = f"""
---
kind: FeatureService
name: mixed
request: [{{name: distance, type: float64}}]
features: [{{view: plane_history}}]
outputs: [{", ".join(OUTPUTS)}]
"""
MODEL = """
---
kind: Model
name: mixed
versions: [{version: "1", path: models/mixed.onnx, service: mixed}]
"""
NOON = pd.Timestamp("2013-01-10T12:00", tz="UTC")


def test_a_model_gets_the_matrix_that_it_was_trained_on(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "models").mkdir()
    base = DEFINITIONS.split("---\nkind: FeatureService")[0].rstrip() + SERVICE
    (tmp_path / "definitions.yaml").write_text(base)
    (tmp_path / "data/landings.csv").write_text(LANDINGS)
    run("apply", tmp_path)
    spine = pd.DataFrame(
        {
            "label": np.arange(40) % 7,
            "distance": np.linspace(100, 3000, 40),
            "tailnum": ["N1", "N2", "N1", "N3"] * 10,
            "event_timestamp": [NOON - pd.Timedelta(hours=6 * hour) for hour in range(40)],
        }
    )
    spine.to_parquet(tmp_path / "spine.parquet")
    train = [binary(), "train", tmp_path, "mixed", "--spine", tmp_path / "spine.parquet", "--out"]
    for name in ("set.parquet", "set.csv"):
        subprocess.run([*train, tmp_path / name], check=True, env=environment(), capture_output=True)

    with serve(tmp_path) as url, quern.Client(url) as client:
        pulled = client.training_set("mixed", spine)
        command = flight.FlightDescriptor.for_command(json.dumps({"feature_service": "mixed"}))
        info = flight.connect(url.replace("http", "grpc")).get_flight_info(command)
    written = pq.read_table(tmp_path / "set.parquet")
    for schema in (pulled.schema, info.schema, written.schema):
        assert named(schema) == OUTPUTS
        assert schema.metadata[b"quern.feature_service"] == b"mixed"
        assert schema.names[-3:] == OUTPUTS, "and they stand so"
    assert pulled.equals(written)
    footer = pq.read_metadata(tmp_path / "set.parquet").metadata
    assert json.loads(footer[b"quern.outputs"]) == OUTPUTS, "for programs that know no Arrow"
    frame = written.to_pandas()
    told = pd.read_csv(tmp_path / "set.csv", parse_dates=["event_timestamp"])
    assert list(told.columns) == list(frame.columns)
    pd.testing.assert_frame_equal(told[OUTPUTS], frame[OUTPUTS], check_dtype=False)

    matrix = frame[named(written.schema)].fillna(-1.0).to_numpy(np.float32)
    model = LinearRegression().fit(matrix, frame["label"])
    assert len({round(float(weight), 9) for weight in model.coef_}) == len(OUTPUTS), "a swap would be seen"
    onnx.save(to_onnx(model, matrix[:1]), tmp_path / "models/mixed.onnx")
    defaults = base.replace("{name: legs}", "{name: legs, default: -1}")
    (tmp_path / "definitions.yaml").write_text(defaults + MODEL)
    run("apply", tmp_path)
    run("materialize", tmp_path)
    whole = frame.dropna(subset=OUTPUTS)
    with serve(tmp_path) as url, quern.Client(url) as client:
        keys = whole[["tailnum", "distance", "event_timestamp"]]
        said = client.predict_batch("mixed", pa.Table.from_pandas(keys, preserve_index=False), as_of=True)
    expected = model.predict(whole[OUTPUTS].to_numpy(np.float32))
    np.testing.assert_allclose(said.column(said.num_columns - 1).to_numpy().ravel(), expected, rtol=1e-4, atol=1e-4)


def named(schema: pa.Schema) -> list[str]:
    """The columns that a model takes, as a training set's schema names them."""
    names: list[str] = json.loads(schema.metadata[b"quern.outputs"])
    return names
