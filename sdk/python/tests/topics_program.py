"""A program for KServe's gRPC: run by test_mlserver.py in the environment of MLServer, which has Triton's client.

Its arguments are the server's address, `host:port`, and rows as JSON. It prints the priorities as JSON.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import tritonclient.grpc as grpc


def main(address: str, rows: list[dict[str, str]]) -> list[float]:
    inputs = []
    for name in rows[0]:
        tensor = grpc.InferInput(name, [len(rows)], "BYTES")
        tensor.set_data_from_numpy(np.array([row[name] for row in rows], dtype=np.object_))
        inputs.append(tensor)
    with grpc.InferenceServerClient(address) as client:
        assert client.is_model_ready("tickets")
        return client.infer("tickets", inputs).as_numpy("priority").ravel().tolist()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))))
