"""How is the server, what do its stores hold, and how far is each feature view?"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from quern.results import parse_time
from quern.route import RampStatus
from quern.show import Shown


@dataclass(frozen=True)
class Trouble:
    """Something that is wrong."""

    part: str
    """`server`, `online_store`, `registry`, `log`, `feature_view`, `source` or `model`."""
    name: str | None
    """Which of these; None where there is one."""
    cause: str
    """What, and the way out."""


@dataclass(frozen=True)
class Run:
    """A run of materialize for one view; times are by the clock of the registry."""

    state: str
    """`running`, `done`, `failed`, or `died`: it began, and its process ended before it did."""
    began: dt.datetime | None
    ended: dt.datetime | None
    """None while it runs, and where its process died; so are `seconds` and `rows_written`."""
    seconds: float | None
    age_seconds: float
    """Since it ended; where it has not, since it began."""
    rows_written: int | None
    """Keys whose head was new."""
    until: dt.datetime | None
    """The query time up to which it has materialized."""
    instance: str
    """The process that ran."""
    error: str | None
    """Why it failed."""


@dataclass(frozen=True)
class ViewStatus:
    """How far the head is with a feature view."""

    name: str
    source: str
    head: str
    """`never`, `begun` or `materialized`."""
    materialized_until: dt.datetime | None
    last_run: Run | None
    """None where none is known."""
    last_success: dt.datetime | None
    """When the latest run that did not fail ended."""


@dataclass(frozen=True)
class SourceStatus:
    """What is known of a source without reading its files."""

    name: str
    newest_event: dt.datetime | None
    """That materialize or a push brought."""
    pushed: dict[str, Any] | None
    """Rows that were pushed, where it takes pushes: `rows`, `tail_rows`, `files`, `bytes`, `accepted`, `rejected`, …"""
    stream: dict[str, Any] | None
    """Its stream, where it has one: `reads`, `partitions`, `cause`, `waiting_events`, `behind_seconds`, …"""
    pull: dict[str, Any] | None
    """How its rows are pulled of a database, where they are: `connection`, `rows`, `at`, `cause`."""


@dataclass(frozen=True)
class Status(Shown):
    """How a server is. It is true where nothing is wrong."""

    healthy: bool
    troubles: list[Trouble]
    """What is wrong, the worst first."""
    server: dict[str, Any]
    """`version`, `instance`, `uptime_seconds`, `ready`, `degraded`, `apply`, …, as it says so."""
    stores: dict[str, Any]
    """`online_store`, `registry`, `log` and `predictions`, as it says so."""
    feature_views: dict[str, ViewStatus]
    sources: dict[str, SourceStatus]
    ramps: dict[str, RampStatus] = field(default_factory=dict)
    """By model: those that go on, and how the last ones ended."""

    @classmethod
    def from_reply(cls, reply: Mapping[str, Any]) -> Status:
        """Read the reply of `/v1/status`; what it says of views and sources that we do not know is left out."""
        return cls(
            healthy=reply["healthy"],
            troubles=[Trouble(**_known(Trouble, told)) for told in reply["troubles"]],
            server=dict(reply["server"]),
            stores=dict(reply["stores"]),
            feature_views={told["name"]: _view(told) for told in reply["feature_views"]},
            sources={
                told["name"]: SourceStatus(**_known(SourceStatus, told, "newest_event")) for told in reply["sources"]
            },
            ramps={told["model"]: RampStatus.from_reply(told) for told in reply.get("ramps", ())},
        )

    def __bool__(self) -> bool:
        return self.healthy

    def to_dict(self) -> dict[str, list[Any]]:
        """Give a row for each feature view."""
        views = self.feature_views.values()
        runs = [view.last_run for view in views]
        return {
            **{name: [getattr(view, name) for view in views] for name in ("name", "source", "head")},
            "materialized_until": [view.materialized_until for view in views],
            "last_run": [None if run is None else run.state for run in runs],
            "age_seconds": [None if run is None else run.age_seconds for run in runs],
            "rows_written": [None if run is None else run.rows_written for run in runs],
            "last_success": [view.last_success for view in views],
        }


def _known(kind: Any, told: Mapping[str, Any], *times: str) -> dict[str, Any]:
    """Take the fields of `kind`, of which `times` are times; what is absent is None."""
    known = {one.name: told.get(one.name) for one in fields(kind)}
    return {name: parse_time(value) if name in times else value for name, value in known.items()}


def _view(told: Mapping[str, Any]) -> ViewStatus:
    known = _known(ViewStatus, told, "materialized_until", "last_success")
    run = known["last_run"]
    known["last_run"] = None if run is None else Run(**_known(Run, run, "began", "ended", "until"))
    return ViewStatus(**known)
