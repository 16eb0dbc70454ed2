"""What is in the image? Says so as CycloneDX, of what `cargo cyclonedx` says of the binary and `root.sh` of its files.

usage: python deploy/sbom.py BINARY.cdx.json ROOT.packages > image.cdx.json

The crates of the binary are components, each Debian package that a file is of, ONNX Runtime, and each file itself with
its SHA-256.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any


def of_file(line: str) -> tuple[dict[str, Any], tuple[str, str] | None]:
    """A file, and the package that it is of."""
    digest, path, package, version = line.split()
    file = {"type": "file", "name": path, "hashes": [{"alg": "SHA-256", "content": digest}], "bom-ref": f"file:{path}"}
    return file, None if package == "-" else (package, version)


def library(name: str, version: str, purl: str) -> dict[str, Any]:
    """A library, which its package URL names."""
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def image(binary: dict[str, Any], lines: list[str]) -> dict[str, Any]:
    """The binary's description, with all else that lies in the image."""
    files, packages = [], set()
    for file, package in map(of_file, lines):
        files.append(file)
        if package is not None:
            packages.add(package)
    of_debian = [library(name, version, f"pkg:deb/debian/{name}@{version}") for name, version in sorted(packages)]
    found = [re.search(r"libonnxruntime\.so\.([\d.]+)$", file["name"]) for file in files]
    versions = [match[1] for match in found if match]
    onnxruntime = [library("onnxruntime", version, f"pkg:pypi/onnxruntime@{version}") for version in versions]
    quern = binary["metadata"]["component"]
    parts = [*onnxruntime, *of_debian]
    whole = {"type": "container", "name": "quern", "version": quern["version"], "bom-ref": "image"}
    depends = {"ref": "image", "dependsOn": [part["bom-ref"] for part in [quern, *parts]]}
    return binary | {
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "metadata": binary["metadata"] | {"component": whole},
        "components": [quern, *binary["components"], *parts, *files],
        "dependencies": [depends, *binary["dependencies"]],
    }


if __name__ == "__main__":
    described, listed = (Path(path).read_text() for path in sys.argv[1:])
    print(json.dumps(image(json.loads(described), listed.splitlines()), indent=2))
