"""Which calls does a server answer over HTTP? Each as its steps, for whatever kind of client takes them."""

from __future__ import annotations

import datetime as dt
import difflib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from quern import arguments, errors, tables
from quern.catalogue import Definitions, FeatureService, Health, Materialized
from quern.request import UNTIL_DONE, Clock, Reply, Request, Steps, Terms, checked
from quern.results import Fallback, OnlineFeatures, Part, Prediction, added
from quern.route import Ramp, Route, route_body
from quern.status import Status

INSTANCES_MAX = 10_000
"""That the server answers in one request."""
BODY_BYTES_MAX = 15 << 20
"""A server takes 16 MiB unless it is set otherwise."""

OnProgress = Callable[[str, int, int], None]
"""Gets a view, the rows passed and the rows to pass."""


def look_up(
    features: str | Sequence[str], entities: Any, full_feature_names: bool, headers: Mapping[str, str] | None
) -> Steps[OnlineFeatures]:
    """Look feature values up."""
    if isinstance(features, str):
        asked: dict[str, Any] = {"feature_service": features}
    else:
        known = "the name of a feature service, or a list of features as `view:feature`"
        asked = {"features": arguments.texts("features", features, known)}
    arguments.flag("full_feature_names", full_feature_names)
    columns = tables.json_columns(entities)
    rows = len(next(iter(columns.values()), []))
    said = checked(headers)

    def ask(part: range, number: int) -> Request:
        cut = {name: values[part.start : part.stop] for name, values in columns.items()}
        body = {**asked, "entities": cut, "full_feature_names": full_feature_names}
        return Request("POST", "/get-online-features", _json(body), said)

    parts = yield from _in_parts(rows, ask)
    return OnlineFeatures.joined([OnlineFeatures.from_reply(part.reply) for part in parts])


def predict(model: str, instances: Any, version: str | None, with_features: bool, terms: Terms) -> Steps[Prediction]:
    """Ask a model."""
    path = f"/v1/models/{quote(arguments.text('model', model, 'the name of a model'), safe='')}"
    named = arguments.version(version)
    if named is not None:
        path += f"/versions/{quote(named, safe='')}"
    arguments.flag("with_features", with_features)
    rows = tables.json_rows(instances)
    clock: Clock = terms.start()

    def ask(part: range, number: int) -> Request:
        body = {"instances": rows[part.start : part.stop], "with_features": with_features}
        return Request("POST", path + ":predict", _json(body), clock.headers(number), clock.wait())

    parts = yield from _in_parts(len(rows), ask)
    return _prediction(parts)


def definitions() -> Steps[Definitions]:
    """Ask what is live."""
    reply = yield Request("GET", "/v1/definitions")
    return Definitions.from_reply(json.loads(reply.success()))


def service(name: str) -> Steps[FeatureService]:
    """Ask which columns a feature service takes and gives."""
    arguments.text("name", name, "the name of a feature service")
    known = (yield from definitions()).feature_services
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean `{near[0]}`? " if near else ""
    names = ", ".join(sorted(known)) or "none"
    raise errors.QuernError(404, "not_found", f"unknown feature service `{name}`; {meant}known: {names}")


def health() -> Steps[Health]:
    """Ask how the server is."""
    live = yield Request("GET", "/v2/health/live")
    if live.status != 200:
        return Health(False, False, str(errors.from_http(live.status, live.reason, live.headers, live.body)), None)
    ready = yield Request("GET", "/v2/health/ready")
    if ready.status == 200:
        degraded = json.loads(ready.body).get("degraded", [])
        message = "; ".join(f"{of['part']}: {of['cause']}" for of in degraded)
    else:
        message = str(errors.from_http(ready.status, ready.reason, ready.headers, ready.body))
    metadata = yield Request("GET", "/v2")
    version = json.loads(metadata.body).get("version") if metadata.status == 200 else None
    return Health(True, ready.status == 200, message, version)


def status() -> Steps[Status]:
    """Ask what is wrong, and how far everything is."""
    reply = yield Request("GET", "/v1/status")
    return Status.from_reply(json.loads(reply.success()))


def route(model: str, weights: Mapping[str, int | str] | None, ramp: Ramp | None, reset: bool) -> Steps[Route]:
    """Change which version of a model answers whom."""
    path = f"/v1/models/{quote(arguments.text('model', model, 'the name of a model'), safe='')}:route"
    reply = yield Request("POST", path, _json(route_body(weights, ramp, reset)))
    return Route.from_reply(json.loads(reply.success()))


def materialize(
    views: str | Sequence[str],
    between: tuple[dt.datetime | str | None, dt.datetime | str | None],
    look_back: dt.timedelta | None,
    on_progress: OnProgress | None,
) -> Steps[Materialized]:
    """Bring the head up to date."""

    def show(line: bytes) -> None:
        told = json.loads(line).get("progress")
        if told is not None and on_progress is not None:
            on_progress(told["view"], told["done_rows"], told["total_rows"])

    arguments.callback("on_progress", on_progress)
    known = "the name of a feature view, or a list of names"
    body = {
        "views": [views] if isinstance(views, str) else arguments.texts("views", views, known),
        "from_us": tables.moment("from_", between[0]),
        "to_us": tables.moment("to", between[1]),
        "look_back_us": arguments.span("look_back", look_back),
    }
    reply = yield Request("POST", "/v1/materialize", _json(body), {}, UNTIL_DONE, show)
    last = json.loads(reply.success() or b"{}")
    if "summary" in last:
        return Materialized.from_summary(last["summary"])
    if "error" in last:
        raise errors.from_line(last, reply.headers)
    raise errors.QuernError(503, "unavailable", "materialize broke off; run it again, it goes on where it stopped")


@dataclass(frozen=True)
class _Answered:
    """A part of a call, and what was answered."""

    rows: range
    reply: Any
    headers: Mapping[str, str]


def _in_parts(rows: int, ask: Callable[[range, int], Request]) -> Generator[Request, Reply, list[_Answered]]:
    """Ask about as many rows at a time as the server takes, in their order."""
    answered: list[_Answered] = []
    start, size = 0, INSTANCES_MAX
    while start < rows or not answered:
        part = range(start, min(start + size, rows))
        request = ask(part, len(answered))
        reply = None
        if len(request.body) <= BODY_BYTES_MAX or len(part) <= 1:
            reply = yield request
        if len(part) > 1 and (reply is None or reply.status == 413):
            # Larger than a server takes, or than this one does: half of it may not be.
            size = len(part) // 2
            continue
        assert reply is not None
        answered.append(_Answered(part, json.loads(reply.success()), reply.headers))
        start = part.stop
    return answered


def _prediction(parts: Sequence[_Answered]) -> Prediction:
    prediction = Prediction([one for part in parts for one in part.reply["predictions"]])
    for part in parts:
        reply, first, rows = part.reply, part.rows.start, len(part.rows)
        only = reply.get("model_version") or part.headers.get("x-quern-version", "")
        prediction.served_by += reply.get("served_by") or [only] * rows
        prediction.request_ids += [part.headers.get("x-request-id", "")] * rows
        prediction.rows += range(rows)
        for told in reply.get("fallbacks", ()):
            places = [first + place for place in told["instances"]]
            prediction.fallbacks.append(Fallback(places, told["served_by"], told["cause"], told["detail"]))
        whole = [{**reply, "instances": range(rows)}] if "features" in reply else []
        for told in [*whole, *reply.get("parts", ())]:
            prediction.parts.append(_part(told, first))
    prediction.failed = added(part.reply.get("failed") or {} for part in parts)
    return prediction


def _part(told: Mapping[str, Any], first: int) -> Part:
    features = told.get("features")
    return Part(
        instances=[first + place for place in told["instances"]],
        model_version=told["model_version"],
        feature_service=told.get("feature_service"),
        features=None if features is None else OnlineFeatures.from_rows(features),
    )


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
