"""What did the server answer?"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd

_EPOCH = "1970-01-01T00:00:00Z"
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6})\d*)?(?:Z|([+-]\d\d:\d\d))\Z")


def parse_time(text: str | None) -> dt.datetime | None:
    """Read RFC 3339; `datetime.fromisoformat` takes neither `Z` nor every length of fraction before Python 3.11."""
    if text is None:
        return None
    match = _TIME.match(text)
    if match is None:
        raise ValueError(f"not a time as RFC 3339 has it: {text!r}")
    seconds, fraction, offset = match.groups()
    return dt.datetime.fromisoformat(f"{seconds}.{(fraction or '0'):0<6}{offset or '+00:00'}").astimezone(
        dt.timezone.utc
    )


@dataclass(frozen=True)
class OnlineFeatures:
    """Feature values of one or more entities, column by column; join keys come first."""

    names: list[str]
    """The columns, in the server's order."""
    columns: list[list[Any]]
    """A list for each column, with a value for each entity."""
    raw_statuses: list[list[str]]
    raw_event_timestamps: list[list[str | None]]

    @classmethod
    def from_reply(cls, reply: dict[str, Any]) -> OnlineFeatures:
        """Read the reply to a look-up, which is column-major, and says "no time" as Feast does: by the epoch."""
        results = reply["results"]
        times = ([None if time == _EPOCH else time for time in result["event_timestamps"]] for result in results)
        return cls(
            names=list(reply["metadata"]["feature_names"]),
            columns=[result["values"] for result in results],
            raw_statuses=[result["statuses"] for result in results],
            raw_event_timestamps=list(times),
        )

    @classmethod
    def from_rows(cls, reply: dict[str, Any]) -> OnlineFeatures:
        """Read the features in the reply to a prediction, which have a row for each instance."""
        names = list(reply["names"])
        return cls(
            names=names,
            columns=_transposed(reply["values"], len(names)),
            raw_statuses=_transposed(reply["statuses"], len(names)),
            raw_event_timestamps=_transposed(reply["event_timestamps"], len(names)),
        )

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def to_dict(self) -> dict[str, list[Any]]:
        """Values by column."""
        return dict(zip(self.names, self.columns, strict=True))

    def to_arrow(self) -> pa.Table:
        """Values as a table; types are those of the values, since JSON does not carry others."""
        return pa.table([pa.array(column) for column in self.columns], names=self.names)

    def to_pandas(self) -> pd.DataFrame:
        """Values as a pandas frame."""
        return self.to_arrow().to_pandas()

    @property
    def statuses(self) -> dict[str, list[str]]:
        """PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE or UNAVAILABLE (a default) for each value, by column."""
        return dict(zip(self.names, self.raw_statuses, strict=True))

    @cached_property
    def event_timestamps(self) -> dict[str, list[dt.datetime | None]]:
        """Since when each value has been true, by column; None for what is not looked up, such as a join key."""
        times = ([parse_time(time) for time in column] for column in self.raw_event_timestamps)
        return dict(zip(self.names, times, strict=True))


@dataclass(frozen=True)
class Prediction:
    """Predictions, and what they were made of."""

    predictions: list[Any]
    """For each instance: a value (or a row) of the model's one output, or values by output where it has several."""
    model_version: str
    feature_service: str
    features: OnlineFeatures
    """The feature vectors that the model saw."""


@dataclass(frozen=True)
class Rejected:
    """A pushed row that was not taken."""

    index: int
    """The place of the row in what was pushed, from 0."""
    column: str | None
    """The column at fault; None where it is the whole row."""
    cause: str


@dataclass(frozen=True)
class PushResult:
    """What became of pushed rows. What is counted as accepted or repeated is durable."""

    accepted: int
    repeated: int
    """Rows that were there already: under this idempotency key, or by their `event_id`."""
    rejected: list[Rejected]
    """The rows that were not taken; all others were."""


def _transposed(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    return [[row[at] for row in rows] for at in range(width)]
