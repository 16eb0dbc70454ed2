"""Are two results the same? One number for a whole table, whatever the order of its rows and columns.

Each cell, in row r (`row_id`) and column j (by alphabet, from 0), gives 64 bits: those of the value as float64 plus
0.0, or the first eight bytes of the MD5 of a string's UTF-8, or all ones for null and NaN. To them
0x9E3779B97F4A7C15 (r + 1) and 0xD1342543DE82EF95 (j + 1) are added, splitmix64's finalizer is applied, and all cells
are summed, modulo 2^64.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Words = NDArray[np.uint64]
NOTHING = np.uint64(2**64 - 1)
ROW_STEP, COLUMN_STEP = np.uint64(0x9E3779B97F4A7C15), 0xD1342543DE82EF95
FACTOR_1, FACTOR_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def checksum(path: Path, features: list[str]) -> tuple[int, str]:
    """Rows and checksum of a Parquet file. Column by column: the file may be larger than what is left of the memory."""
    file = pq.ParquetFile(path)
    missing = set(features) - set(file.schema_arrow.names)
    if missing:
        raise SystemExit(f"{path} lacks the columns {', '.join(sorted(missing))}")
    rows = (file.read(["row_id"])["row_id"].to_numpy().astype(np.uint64) + np.uint64(1)) * ROW_STEP
    total = 0
    for number, name in enumerate(sorted(features), start=1):
        offset = np.uint64(number * COLUMN_STEP % 2**64)
        total += int(finalized(bits(file.read([name])[name]) + rows + offset).sum(dtype=np.uint64))
    return len(rows), f"{total % 2**64:016x}"


def bits(column: pa.ChunkedArray) -> Words:
    """Turn each cell into 64 bits."""
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        values = column.cast(pa.float64()).to_numpy() + 0.0  # nulls become NaN; -0.0 becomes 0.0
        return np.where(np.isnan(values), NOTHING, values.view(np.uint64))
    words = column.cast(pa.string()).combine_chunks().dictionary_encode()
    digests = [hashlib.md5(word.encode()).digest()[:8] for word in words.dictionary.to_pylist()]
    table = np.array([*(int.from_bytes(digest, "little") for digest in digests), int(NOTHING)], dtype=np.uint64)
    return table[words.indices.fill_null(len(digests)).to_numpy(zero_copy_only=False)]


def finalized(words: Words) -> Words:
    """Mix as splitmix64 does at its end."""
    words = (words ^ (words >> np.uint64(30))) * FACTOR_1
    words = (words ^ (words >> np.uint64(27))) * FACTOR_2
    return words ^ (words >> np.uint64(31))
