"""How does a result look? As columns: a table of pyarrow or pandas, and a small one in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from html import escape
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd

_SHOWN_ROWS_MAX = 20
_SHOWN_CHARS_MAX = 80


class Shown(ABC):
    """A result that can be looked at as a table."""

    @abstractmethod
    def to_dict(self) -> dict[str, list[Any]]:
        """Give values by column."""

    def to_arrow(self) -> pa.Table:
        """Give a table; types are those of the values, since JSON does not carry others."""
        columns = self.to_dict()
        return pa.table([pa.array(values) for values in columns.values()], names=list(columns))

    def to_pandas(self) -> pd.DataFrame:
        """Give a pandas frame."""
        return self.to_arrow().to_pandas()

    def _repr_html_(self) -> str:
        columns = self.to_dict()
        rows = len(next(iter(columns.values()), []))
        head = "".join(f"<th>{escape(name)}</th>" for name in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{_cell(values[row])}</td>" for values in columns.values()) + "</tr>"
            for row in range(min(rows, _SHOWN_ROWS_MAX))
        )
        more = f"<p>{rows:,} rows, {_SHOWN_ROWS_MAX} shown</p>" if rows > _SHOWN_ROWS_MAX else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cell(value: Any) -> str:
    if value is None:
        return "<i>null</i>"
    text = str(value)
    return escape(text if len(text) <= _SHOWN_CHARS_MAX else text[: _SHOWN_CHARS_MAX - 1] + "…")
