"""Is what a server says of itself at /openapi.json true? Asked by Schemathesis, in `openapi_program.py`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from conftest import repository_at, run, serve

SECONDS_MAX = 120
# Made-up requests of each operation: about 15 s for all.
CASES = 5


def schemathesis_python() -> Path:
    """The Python of the environment that `setup.sh` makes for Schemathesis."""
    cache = os.environ.get("QUERN_CACHE") or Path.home() / ".cache/quern"
    found = Path(cache) / "schemathesis/bin/python"
    if not found.is_file():
        pytest.fail(f"{found} is missing: run ./setup.sh", pytrace=False)
    return found


def test_the_server_does_what_it_says(tmp_path: Path) -> None:
    repository = repository_at(tmp_path)
    definitions = repository / "definitions.yaml"
    definitions.write_text(definitions.read_text().replace("name: landings\n", "name: landings\npush: true\n"))
    run("apply", repository)
    run("materialize", repository)
    program = Path(__file__).with_name("openapi_program.py")
    # Its own pytest, without what the tests here share.
    options = ["--noconftest", "--quiet", "--color=no", "-p", "no:cacheprovider", "-c", os.devnull]
    with serve(repository) as url:
        done = subprocess.run(
            [schemathesis_python(), "-m", "pytest", *options, program],
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            env={**os.environ, "QUERN_TEST_URL": url, "QUERN_TEST_CASES": str(CASES)},
        )
    assert done.returncode == 0, done.stdout + done.stderr
