"""A program for Triton whose server asks who it is: run by test_credentials.py in the environment of Triton's client.

Its arguments are the server's address, `host:port`, its authority's certificate, an API key, and the client's own
certificate and key. It prints what it heard as JSON: with the key, with the certificate, and with nothing.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException


def ask(kind: Any, client: Any, headers: dict[str, str] | None) -> Any:
    asked = {
        "tailnum": ("BYTES", np.array(["N1"], dtype=np.object_)),
        "distance": ("FP64", np.array([100.5])),
        "event_timestamp": ("BYTES", np.array(["2013-01-10T00:00:00Z"], dtype=np.object_)),
    }
    inputs = [kind.InferInput(name, [1], datatype) for name, (datatype, _) in asked.items()]
    for tensor, (_, values) in zip(inputs, asked.values(), strict=True):
        tensor.set_data_from_numpy(values)
    try:
        # A copy: the client for HTTP adds numbers to it, which gRPC does not take.
        return float(client.infer("delay", inputs, headers=headers and dict(headers)).as_numpy("score").ravel()[0])
    except InferenceServerException as error:
        return f"{error.status()}: {error.message()}"


def main(address: str, ca: str, api_key: str, certificate: str, key: str) -> dict[str, Any]:
    shown = {"certfile": certificate, "keyfile": key}
    http = over_http.InferenceServerClient(address, ssl=True, ssl_options={"ca_certs": ca})
    http_shown = over_http.InferenceServerClient(address, ssl=True, ssl_options={"ca_certs": ca, **shown})
    grpc = over_grpc.InferenceServerClient(address, ssl=True, root_certificates=ca)
    grpc_shown = over_grpc.InferenceServerClient(
        address, ssl=True, root_certificates=ca, private_key=key, certificate_chain=certificate
    )
    headers = {"authorization": f"Bearer {api_key}"}
    return {
        "http": [ask(over_http, http, headers), ask(over_http, http_shown, None), ask(over_http, http, None)],
        "grpc": [ask(over_grpc, grpc, headers), ask(over_grpc, grpc_shown, None), ask(over_grpc, grpc, None)],
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
