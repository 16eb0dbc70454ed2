"""How do rows go up, and what became of each batch? A batch is acknowledged once it is durable."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from pyarrow import flight

from quern import arguments, errors
from quern.connection import Connection
from quern.results import PushResult, Rejected

To = Literal["online", "offline", "online_and_offline"]

_REFUSALS_MAX = 8
"""In a row, without a batch being taken in between."""
_WAIT_SECONDS_MAX = 30.0
_RECONNECT_SECONDS = 1.0


@dataclass(frozen=True)
class Command:
    """What a Flight descriptor says about an upload."""

    push_source_name: str
    to: To
    idempotency_key: str | None

    def __post_init__(self) -> None:
        arguments.text("source", self.push_source_name, "the name of a source")
        arguments.one_of("to", self.to, ("online", "offline", "online_and_offline"))
        arguments.optional_text("idempotency_key", self.idempotency_key, "a text")

    def to_json(self) -> bytes:
        """As the server reads it."""
        return json.dumps(vars(self)).encode()


class Upload:
    """The batches of one push, over as many Flight `DoPut`s as it takes until each of them is acknowledged."""

    def __init__(self, connection: Connection, command: Command, schema: pa.Schema, batches: Sequence[Any]) -> None:
        self._connection, self._command, self._schema = connection, command, schema
        self._batches = batches
        self._replies: dict[int, dict[str, Any]] = {}

    def run(self) -> PushResult:
        """Send everything; wait and send again where the server asks for it."""
        refusals = 0
        while True:
            before = len(self._replies)
            error = self._attempt()
            if error is None:
                return self._result()
            if error.code == "too_large" and self._cut():
                continue
            refusals = refusals + 1 if len(self._replies) == before else 1
            wait = self._wait_seconds(error)
            if wait is None or refusals > _REFUSALS_MAX:
                raise errors.PushError(error, self._result()) from error
            # Spread: clients that were refused together should not come back together.
            time.sleep(min(wait, _WAIT_SECONDS_MAX) * random.uniform(1.0, 1.25))

    def _cut(self) -> bool:
        """Halve the batch that the server found too large, and those after it to its size; false where it is one row.

        The same table is always cut in the same way, so a key goes on to say which batch is which.
        """
        first = next(at for at in range(len(self._batches)) if at not in self._replies)
        rows = self._batches[first].num_rows // 2
        if rows == 0:
            return False
        cut = [
            batch.slice(start, rows)
            for batch in self._batches[first:]
            for start in range(0, max(1, batch.num_rows), rows)
        ]
        self._batches = [*self._batches[:first], *cut]
        return True

    def _wait_seconds(self, error: errors.QuernError) -> float | None:
        if error.retry_after is not None:
            return error.retry_after
        # Whether a batch was taken whose acknowledgement was lost, only a key can tell.
        lost = error.code == "unavailable" and self._command.idempotency_key is not None
        return _RECONNECT_SECONDS if lost else None

    def _attempt(self) -> errors.QuernError | None:
        # The server numbers batches from the beginning of the upload and finds them by key and number, so with a key
        # everything goes up again, and only what was not acknowledged is news. Without one, only that goes up.
        keyed = self._command.idempotency_key is not None
        sent = [at for at in range(len(self._batches)) if keyed or at not in self._replies]
        try:
            descriptor = flight.FlightDescriptor.for_command(self._command.to_json())
            writer, reader = self._connection.client.do_put(descriptor, self._schema)
            call = self._connection.last_call()
        except (pa.ArrowException, OSError) as error:
            return self._connection.error(error)
        stop = threading.Event()
        # With a thread of its own, as in `Exchange`: a server that acknowledges as it goes would else wait for us to
        # read, and we for it to take what we write.
        thread = threading.Thread(target=self._send, args=(writer, sent, stop), name="quern-upload", daemon=True)
        thread.start()
        failed: Exception | None = None
        try:
            while (acknowledged := reader.read()) is not None:
                reply = json.loads(acknowledged.to_pybytes())
                self._replies.setdefault(sent[reply["batch"]], reply)
        except (pa.ArrowException, OSError) as error:
            failed = error
        finally:
            stop.set()
            thread.join()
            # Closing tells why a call ended early; where reading has told it already, it only repeats that.
            try:
                writer.close()
            except (pa.ArrowException, OSError) as error:
                failed = failed or error
        if failed is not None:
            return self._connection.error(failed, call)
        if len(self._replies) < len(self._batches):
            told = f"{self._connection.url} acknowledged {len(self._replies)} of {len(self._batches)} batches and ended"
            return errors.QuernError(500, "internal", told)
        return None

    def _send(self, writer: flight.FlightStreamWriter, sent: Sequence[int], stop: threading.Event) -> None:
        # What ends the call early is told to whoever reads.
        with contextlib.suppress(Exception):
            for at in sent:
                if stop.is_set():
                    return
                writer.write_batch(self._batches[at])
            writer.done_writing()

    def _result(self) -> PushResult:
        rejected, first = [], 0
        for at, batch in enumerate(self._batches):
            for row in self._replies.get(at, {}).get("rejected", ()):
                rejected.append(Rejected(first + row["index"], row.get("column"), row["cause"]))
            first += batch.num_rows
        replies = self._replies.values()
        return PushResult(
            accepted=sum(reply["accepted"] for reply in replies),
            repeated=sum(reply["repeated"] for reply in replies),
            rejected=rejected,
        )
