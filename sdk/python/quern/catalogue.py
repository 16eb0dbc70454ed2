"""What is declared, how is the server, and what was materialized?"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from quern.show import Shown

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)


class Column(NamedTuple):
    """A named column, and its type in the words of the definition language, such as `float64`."""

    name: str
    type: str


@dataclass(frozen=True)
class Entity:
    """What features are of."""

    name: str
    description: str
    join_keys: list[Column]


@dataclass(frozen=True)
class Connection:
    """Where definitions may lead over the network."""

    name: str
    description: str
    url: str


@dataclass(frozen=True)
class FeatureView:
    """Features of one source."""

    name: str
    description: str
    entities: list[str]
    source: str
    ttl: dt.timedelta | None
    """How long a row counts; None: for ever."""
    lag: dt.timedelta
    """How late a row becomes visible."""
    at: str
    """Whether a row counts at the very time at which it becomes visible: `including` or `before`."""
    features: list[Column]


@dataclass(frozen=True)
class FeatureService(Shown):
    """Which columns a request or a spine row brings, and which a model gets."""

    name: str
    description: str
    join_keys: list[Column]
    request: list[Column]
    """What only the caller knows."""
    outputs: list[Column]
    """The columns of a training set after the spine's, and the model's input, in this order."""

    @property
    def inputs(self) -> list[Column]:
        """What a request or a spine row brings, besides `event_timestamp`: join keys, then request columns."""
        return [*self.join_keys, *self.request]

    def to_dict(self) -> dict[str, list[Any]]:
        """Give the columns, a row each."""
        roles = {"join key": self.join_keys, "request": self.request, "output": self.outputs}
        rows = [(role, *column) for role, columns in roles.items() for column in columns]
        return {key: [row[at] for row in rows] for at, key in enumerate(("role", "name", "type"))}


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model."""

    version: str
    feature_service: str
    digest: str
    """SHA-256 of the ONNX file; of an ensemble, that of its steps."""
    execution_providers: list[str]
    weight: int
    """Its share of the requests that name no version, in parts of all weights of the model."""
    trained_on: str | None = None
    """The digest of the training set that it was trained on, where its definition says so."""


@dataclass(frozen=True)
class Model:
    """A model, and its versions as listed."""

    name: str
    description: str
    versions: list[ModelVersion]


@dataclass(frozen=True)
class Definitions(Shown):
    """What is live."""

    number: int
    """Of the apply that made it live; 0 before the first one."""
    entities: dict[str, Entity]
    feature_views: dict[str, FeatureView]
    feature_services: dict[str, FeatureService]
    models: dict[str, Model]
    functions: str
    """The fingerprint of `exp`, `sin` and their like; `quern.functions` of a training set that was made by the same."""
    connections: dict[str, Connection] = field(default_factory=dict)
    """Those that one may change, or whose owner's definitions one may."""

    @classmethod
    def from_reply(cls, reply: Mapping[str, Any]) -> Definitions:
        """Read the reply of `/v1/definitions`; what it says that we do not know is left out."""
        return cls(
            number=reply["number"],
            entities=_by_name(Entity(e["name"], e["description"], _columns(e["join_keys"])) for e in reply["entities"]),
            feature_views=_by_name(_view(view) for view in reply["feature_views"]),
            feature_services=_by_name(_service(service) for service in reply["feature_services"]),
            models=_by_name(_model(model) for model in reply["models"]),
            functions=reply["functions"],
            connections=_by_name(
                Connection(c["name"], c["description"], c["url"]) for c in reply.get("connections", ())
            ),
        )

    def to_dict(self) -> dict[str, list[Any]]:
        """Give a row for each thing that is declared."""
        kinds: dict[str, Mapping[str, Any]] = {
            "Entity": self.entities,
            "Connection": self.connections,
            "FeatureView": self.feature_views,
            "FeatureService": self.feature_services,
            "Model": self.models,
        }
        rows = [(kind, one.name, one.description) for kind, known in kinds.items() for one in known.values()]
        return {key: [row[at] for row in rows] for at, key in enumerate(("kind", "name", "description"))}


@dataclass(frozen=True)
class Health(Shown):
    """How the server is. It is true where the server is ready."""

    live: bool
    """The process answers."""
    ready: bool
    """Something is live to answer with."""
    message: str
    """Why it is not ready, or what it does not do meanwhile, as far as one may know; else empty."""
    version: str | None
    """Of the server."""

    def __bool__(self) -> bool:
        return self.ready

    def to_dict(self) -> dict[str, list[Any]]:
        """Give one row."""
        return {name: [value] for name, value in vars(self).items()}


@dataclass(frozen=True)
class MaterializedView:
    """What was done for one view."""

    view: str
    to: dt.datetime
    """The query time up to which it is materialized."""
    rows_read: int
    rows_written: int
    """Keys whose head is new."""
    rows_unchanged: int
    """Keys whose head was this row already."""
    rows_older: int
    """Keys whose head was a later row."""
    rows_filtered: int
    """Rows that the view's `where` leaves out."""
    rejected: dict[str, int]
    """Rows that cannot be stored, by cause."""
    seconds: float
    failed: dict[str, int] = field(default_factory=dict)
    """For each feature whose expression failed, for how many rows."""
    rows_removed: int = 0
    """Keys of which a row went out of the head that history has no more."""


@dataclass(frozen=True)
class Materialized(Shown):
    """What was done, view by view."""

    views: list[MaterializedView]
    wall_seconds: float
    warnings: list[str] = field(default_factory=list)
    """What was odd and is to be looked at."""
    pulled: list[dict[str, Any]] = field(default_factory=list)
    """Of each source whose rows are a database's: `source`, `rows`, `known`, `rejected`, `seconds`."""

    @classmethod
    def from_summary(cls, summary: Mapping[str, Any]) -> Materialized:
        """Read the last line of the reply of `/v1/materialize`."""
        views = [_materialized(view) for view in summary["views"]]
        warnings, pulled = list(summary.get("warnings", ())), list(summary.get("pulled", ()))
        return cls(views, summary["wall_seconds"], warnings, pulled)

    def to_dict(self) -> dict[str, list[Any]]:
        """Give a row for each view."""
        rows = [{**vars(v), "rejected": sum(v.rejected.values()), "failed": sum(v.failed.values())} for v in self.views]
        return {name: [row[name] for row in rows] for name in MaterializedView.__dataclass_fields__}


def _by_name(things: Any) -> dict[str, Any]:
    return {thing.name: thing for thing in things}


def _columns(told: Sequence[Mapping[str, str]]) -> list[Column]:
    return [Column(column["name"], column["type"]) for column in told]


def _view(told: Mapping[str, Any]) -> FeatureView:
    ttl = told.get("ttl_us")
    return FeatureView(
        name=told["name"],
        description=told["description"],
        entities=list(told["entities"]),
        source=told["source"],
        ttl=None if ttl is None else dt.timedelta(microseconds=ttl),
        lag=dt.timedelta(microseconds=told["lag_us"]),
        at=told["at"],
        features=_columns(told["features"]),
    )


def _service(told: Mapping[str, Any]) -> FeatureService:
    inputs, keys = _columns(told["inputs"]), told["join_keys"]
    return FeatureService(
        name=told["name"],
        description=told["description"],
        join_keys=inputs[:keys],
        request=inputs[keys:],
        outputs=_columns(told["outputs"]),
    )


def _model(told: Mapping[str, Any]) -> Model:
    versions = [
        ModelVersion(
            version=version["version"],
            feature_service=version["feature_service"],
            digest=version["digest"],
            execution_providers=list(version.get("execution_providers", ())),
            weight=version.get("weight", 0),
            trained_on=(version.get("trained_on") or {}).get("digest"),
        )
        for version in told["versions"]
    ]
    return Model(told["name"], told["description"], versions)


def _materialized(told: Mapping[str, Any]) -> MaterializedView:
    known = {name: told[name] for name in MaterializedView.__dataclass_fields__ if name in told}
    known["to"] = _EPOCH + dt.timedelta(microseconds=told["to_us"])
    return MaterializedView(**known)
