"""Which version of a model answers whom, and which one gets more by and by?"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from quern import arguments
from quern.results import parse_time
from quern.show import Shown


@dataclass(frozen=True)
class Ramp:
    """Has the share of a version go through `steps` by itself: `Ramp("2", ["10%", "50%", "100%"], "10m")`."""

    version: str
    steps: Sequence[str]
    """Percentages, ascending."""
    every: str | dt.timedelta
    """How long each lasts at least, as in `"10m"`; each also waits for 100 requests of the version."""
    stop_if: str | Sequence[str] = ()
    """What stops it and gives back the weights from before, as in `"error_rate > 0.01 or p99 > 50ms"`."""

    def body(self) -> dict[str, Any]:
        """Give it as the server reads it."""
        every = self.every
        if isinstance(every, dt.timedelta):
            every = f"{arguments.span('every', every)}us"
        known = 'a condition such as "error_rate > 0.01", or a list of them'
        return {
            "version": arguments.version(self.version),
            "steps": arguments.texts("steps", self.steps, 'percentages such as ["10%", "100%"]'),
            "every": arguments.text("every", every, 'a duration such as "10m", or a timedelta'),
            "stop_if": [self.stop_if]
            if isinstance(self.stop_if, str)
            else arguments.texts("stop_if", self.stop_if, known),
        }


@dataclass(frozen=True)
class RampStatus:
    """The ramp of a model: one that goes on, or how the last one ended."""

    model: str
    version: str
    state: str
    """`running`; `waiting` for requests; `done`; `stopped` by itself; `ended` by other weights."""
    step: int
    """The step that it is in, or ended in; 1 is the first."""
    steps: list[str]
    every: str
    since: dt.datetime | None
    """When the step began; of a ramp that is over, when it ended."""
    requests: int | None
    """That the version had in this step, on all servers; None where that is not known."""
    stop_if: list[dict[str, Any]]
    """For each `condition` the `share` of the requests that met it, from 0 to 1."""
    reason: str | None
    """Why it ended before its last step was over."""

    @classmethod
    def from_reply(cls, told: Mapping[str, Any]) -> RampStatus:
        """Read what a server says; what we do not know of it is left out."""
        known: dict[str, Any] = {field.name: told.get(field.name) for field in fields(cls)}
        known["since"] = parse_time(known["since"])
        return cls(**known)


@dataclass(frozen=True)
class Route(Shown):
    """Which version answers whom, from now on."""

    number: int
    """Of the apply that is live now."""
    weights: dict[str, int]
    """Of all versions."""
    percent: dict[str, float]
    percent_before: dict[str, float]
    ramp: RampStatus | None
    """The one that begins with it."""
    ended_ramp: str | None
    """Which one it ended, where one went on."""

    @classmethod
    def from_reply(cls, reply: Mapping[str, Any]) -> Route:
        """Read the reply of `:route`."""
        known: dict[str, Any] = {field.name: reply.get(field.name) for field in fields(cls)}
        if known["ramp"] is not None:
            known["ramp"] = RampStatus.from_reply(known["ramp"])
        return cls(**known)

    def to_dict(self) -> dict[str, list[Any]]:
        """Give a row for each version."""
        return {
            "version": list(self.weights),
            "weight": list(self.weights.values()),
            "percent": [self.percent.get(version) for version in self.weights],
        }


def route_body(weights: Mapping[str, int | str] | None, ramp: Ramp | None, reset: bool) -> dict[str, Any]:
    """Give what is asked for: one of the three."""
    arguments.flag("reset", reset)
    if (weights is not None) + (ramp is not None) + reset != 1:
        raise TypeError("route: expected weights, a ramp, or reset=True, and no two of them")
    if ramp is not None:
        if not isinstance(ramp, Ramp):
            raise arguments.wrong("ramp", 'a quern.Ramp, such as Ramp("2", ["10%", "100%"], "10m")', ramp)
        return {"ramp": ramp.body()}
    if weights is not None:
        if not isinstance(weights, Mapping) or not weights:
            raise arguments.wrong("weights", 'shares by version, such as {"2": "10%"}', weights)
        return {"weights": {str(version): share for version, share in weights.items()}}
    return {}
