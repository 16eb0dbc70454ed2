"""What did the server answer?"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from quern import tables
from quern.show import Shown
from quern.types import typed

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
class OnlineFeatures(Shown):
    """Feature values of one or more entities, column by column; join keys come first."""

    names: list[str]
    """The columns, in the server's order."""
    columns: list[list[Any]]
    """A list for each column, with a value for each entity."""
    raw_statuses: list[list[str]]
    raw_event_timestamps: list[list[str | None]]
    types: list[str] = field(default_factory=list)
    """The type of each column, in the words of the definitions; empty where the server does not say."""
    failed: dict[str, int] = field(default_factory=dict)
    """For each feature whose expression failed, for how many entities; its value is null there."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What the reply says besides, as the server sent it."""

    @classmethod
    def from_reply(cls, reply: Mapping[str, Any]) -> OnlineFeatures:
        """Read the reply to a look-up, which is column-major, and says "no time" as Feast does: by the epoch."""
        results, metadata = reply["results"], dict(reply["metadata"])
        # A list that is empty has no time for anybody.
        times = (
            [None if time == _EPOCH else time for time in result["event_timestamps"]] or [None] * len(result["values"])
            for result in results
        )
        return cls(
            names=list(metadata.pop("feature_names")),
            columns=[result["values"] for result in results],
            raw_statuses=[result["statuses"] for result in results],
            raw_event_timestamps=list(times),
            types=list(metadata.pop("feature_types", ())),
            failed=dict(metadata.pop("failed", None) or reply.get("failed") or {}),
            metadata=metadata,
        )

    @classmethod
    def from_rows(cls, reply: Mapping[str, Any]) -> OnlineFeatures:
        """Read the features in the reply to a prediction, which have a row for each instance."""
        names = list(reply["names"])
        return cls(
            names=names,
            columns=_transposed(reply["values"], len(names)),
            raw_statuses=_transposed(reply["statuses"], len(names)),
            raw_event_timestamps=_transposed(reply["event_timestamps"], len(names)),
        )

    @classmethod
    def joined(cls, parts: Sequence[OnlineFeatures]) -> OnlineFeatures:
        """Put the entities of parts one after the other."""
        first = parts[0]
        if len(parts) == 1:
            return first
        if any(part.names != first.names for part in parts):
            raise ValueError("the definitions changed between two parts of this call; ask again")
        return cls(
            names=first.names,
            columns=_appended([part.columns for part in parts]),
            raw_statuses=_appended([part.raw_statuses for part in parts]),
            raw_event_timestamps=_appended([part.raw_event_timestamps for part in parts]),
            types=first.types,
            failed=added(part.failed for part in parts),
            metadata=first.metadata,
        )

    def taken(self, rows: Sequence[int]) -> OnlineFeatures:
        """Give the entities at `rows`, in that order."""

        def take(columns: list[list[Any]]) -> list[list[Any]]:
            return [[column[row] for row in rows] for column in columns]

        columns, statuses, times = self.columns, self.raw_statuses, self.raw_event_timestamps
        return replace(self, columns=take(columns), raw_statuses=take(statuses), raw_event_timestamps=take(times))

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def to_dict(self) -> dict[str, list[Any]]:
        """Values by column."""
        return dict(zip(self.names, self.columns, strict=True))

    def to_arrow(self) -> pa.Table:
        """Give a table whose columns have the types of the features, as in a training set."""
        types = self.types or [""] * len(self.names)
        return pa.table([typed(*column) for column in zip(self.columns, types, strict=True)], names=self.names)

    @property
    def statuses(self) -> dict[str, list[str]]:
        """PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE or UNAVAILABLE (a default) for each value, by column."""
        return dict(zip(self.names, self.raw_statuses, strict=True))

    @property
    def materialized_until(self) -> dict[str, dt.datetime | None]:
        """Up to when each view is materialized, where the server tells; None for one that never was."""
        views = self.metadata.get("feature_view_metadata", ())
        told = [view for view in views if "materialized_until" in view]
        return {view["name"]: parse_time(view["materialized_until"]) for view in told}

    @cached_property
    def event_timestamps(self) -> dict[str, list[dt.datetime | None]]:
        """Since when each value has been true, by column; None for what is not looked up, such as a join key."""
        times = ([parse_time(time) for time in column] for column in self.raw_event_timestamps)
        return dict(zip(self.names, times, strict=True))


@dataclass(frozen=True)
class Fallback:
    """Instances that were left to a substitute."""

    instances: list[int]
    """Their places among those that were asked about, from 0."""
    served_by: str
    """What answered them: a version, `expr` or `constant`."""
    cause: str
    """`error`, `timeout`, `overload`, `unavailable`, `stale` or `missing`."""
    detail: str


@dataclass(frozen=True)
class Part:
    """What one version saw of the instances that were its own."""

    instances: list[int]
    """Their places among those that were asked about, from 0."""
    model_version: str
    feature_service: str | None
    features: OnlineFeatures | None
    """The vectors, in the order of `instances`; None where nothing could be looked up."""


class Prediction(list[Any], Shown):
    """The predictions, one for each instance, and who made them. It is the list of them.

    Each is a value (or a row) of the model's one output, or values by output where it has several.
    """

    def __init__(self, predictions: Sequence[Any] = ()) -> None:
        super().__init__(predictions)
        self.served_by: list[str] = []
        """What answered each instance: a version, `expr` or `constant`."""
        self.fallbacks: list[Fallback] = []
        """Where something else answered than the version whose turn it was, and why."""
        self.request_ids: list[str] = []
        """The request that each instance was part of: more than one where the call was cut at the server's limit."""
        self.rows: list[int] = []
        """The place of each instance in its request. Request and row are what a label belongs to."""
        self.failed: dict[str, int] = {}
        """For each feature whose expression failed, for how many instances; its value is null there."""
        self.parts: list[Part] = []
        """What each version saw; only with `with_features`."""

    @property
    def predictions(self) -> list[Any]:
        """The predictions as a plain list."""
        return list(self)

    @property
    def request_id(self) -> str:
        """What the server's log calls the request; the first one, where the call was cut at the server's limit."""
        return self.request_ids[0] if self.request_ids else ""

    @property
    def model_version(self) -> str:
        """What answered, each once, with commas between where several did."""
        return ",".join(sorted({part.model_version for part in self.parts} or set(self.served_by)))

    @property
    def feature_service(self) -> str:
        """What fed the versions that answered, as `model_version`; only with `with_features`."""
        return ",".join(sorted({part.feature_service for part in self.parts if part.feature_service is not None}))

    @cached_property
    def features(self) -> OnlineFeatures:
        """The feature vectors that the model saw, in the order of the instances; only with `with_features`."""
        seen = [part.features for part in self.parts if part.features is not None]
        if not self.parts:
            raise ValueError("only predict(..., with_features=True) tells what the model saw")
        if len(seen) < len(self.parts):
            raise ValueError("of some instances nothing could be looked up; `parts` has the others")
        if any(features.names != seen[0].names for features in seen):
            raise ValueError("versions answered that see other features than each other; `parts` has those of each")
        places = [place for part in self.parts for place in part.instances]
        order = sorted(range(len(places)), key=places.__getitem__)
        return OnlineFeatures.joined(seen).taken(order)

    def labels(self, **columns: Sequence[Any]) -> pa.Table:
        """Say what came true of each instance, as `label` takes it: `prediction.labels(label=[12.5, None])`.

        Each column has a value for each instance. Instances of which every column is None are left out.
        """
        known: dict[str, list[Any]] = {}
        for name, values in columns.items():
            tables.check_list(name, values)
            known[name] = list(values)
            if len(known[name]) != len(self):
                raise ValueError(f"{name} has {len(known[name])} values, and there are {len(self)} predictions")
        places = [at for at in range(len(self)) if any(values[at] is not None for values in known.values())]
        told = {name: [values[at] for at in places] for name, values in known.items()}
        where = {"request_id": [self.request_ids[at] for at in places], "row": [self.rows[at] for at in places]}
        return tables.to_table({**where, **told})

    def to_dict(self) -> dict[str, list[Any]]:
        """Give predictions, who made them and where they are logged, by column."""
        if len(self) and all(isinstance(one, Mapping) for one in self):
            outputs = {name: [one.get(name) for one in self] for name in dict.fromkeys(n for one in self for n in one)}
        else:
            outputs = {"prediction": list(self)}
        told: dict[str, list[Any]] = {"served_by": self.served_by, "request_id": self.request_ids, "row": self.rows}
        return {**told, **outputs}


@dataclass(frozen=True)
class Rejected:
    """A pushed row that was not taken."""

    index: int
    """The place of the row in what was pushed, from 0."""
    column: str | None
    """The column at fault; None where it is the whole row."""
    cause: str


@dataclass(frozen=True)
class PushResult(Shown):
    """What became of pushed rows. What is counted as accepted or repeated is durable."""

    accepted: int
    repeated: int
    """Rows that were there already: under this idempotency key, or by their `event_id`."""
    rejected: list[Rejected]
    """The rows that were not taken; all others were."""

    def to_dict(self) -> dict[str, list[Any]]:
        """Give the rows that were rejected, by column."""
        return {name: [vars(row)[name] for row in self.rejected] for name in ("index", "column", "cause")}

    def _repr_html_(self) -> str:
        told = f"{self.accepted:,} accepted, {self.repeated:,} repeated, {len(self.rejected):,} rejected"
        return f"<p>{told}</p>{super()._repr_html_() if self.rejected else ''}"


def added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add counts by name."""
    total: dict[str, int] = {}
    for part in counts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total


def _appended(parts: Sequence[Sequence[list[Any]]]) -> list[list[Any]]:
    return [[value for column in of_parts for value in column] for of_parts in zip(*parts, strict=True)]


def _transposed(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    return [[row[at] for row in rows] for at in range(width)]
