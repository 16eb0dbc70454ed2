"""What comes down of a table, and what does the server say of it besides rows?"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from pyarrow import flight

from quern.results import added


class Received:
    """What the server said of a table, as far as that came."""

    def __init__(self) -> None:
        self.failed: dict[str, int] = {}
        """For each feature whose expression failed, for how many of the rows that came; its value is null there."""
        self.pin: dict[str, Any] | None = None
        """What a training set was made of; known after its last batch."""

    def batches(self, reader: flight.FlightStreamReader) -> Iterator[pa.RecordBatch]:
        """Give the rows, as they come."""
        for chunk in reader:
            if chunk.app_metadata is not None:
                self._note(chunk.app_metadata.to_pybytes())
            if chunk.data is not None:
                yield chunk.data

    def warn_of_failed(self) -> None:
        """Say of how many rows each feature is null because it could not be computed."""
        for feature, count in self.failed.items():
            values = "1 value" if count == 1 else f"{count} values"
            _warn(f"{values} of `{feature}` could not be computed")

    def _note(self, notes: bytes) -> None:
        """Take what the server says besides rows; of other servers it may be anything."""
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            told = json.loads(notes)
            self.failed = added([self.failed, told.get("failed", {})])
            self.pin = told.get("pin", self.pin)
            _warn_of_coinciding(told)


def _warn_of_coinciding(told: Mapping[str, Any]) -> None:
    for view, count in told.get("coinciding", {}).items():
        _warn(
            f"{count} of {told.get('rows')} rows of the spine see a row of feature view `{view}` that became "
            "visible at their own `event_timestamp`; where it is the very event that they stand for, say "
            "`at: before` in the view, or name it by `exclude_event` in the feature service"
        )


def _warn(told: str) -> None:
    """Say what the server found odd about a table, where the caller's program is and not where this module is."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("quern."):
        level, frame = level + 1, frame.f_back
    warnings.warn(told, stacklevel=level)
