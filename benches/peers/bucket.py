"""How long does DuckDB take for the same point-in-time join over files in a bucket? `bucket.rs` runs it.

    bucket.py PATH ENDPOINT SPINE

Prints seconds. `httpfs` is the extension that reads buckets: it comes with the packages `duckdb-extensions` and
`duckdb-extension-httpfs`, where DuckDB's own server of extensions is not reached.
"""

from __future__ import annotations

import sys
import time

import duckdb

path, endpoint, spine = sys.argv[1:]
connection = duckdb.connect()
if endpoint:
    try:
        connection.execute("LOAD httpfs")
    except duckdb.Error:
        from duckdb_extensions import import_extension

        import_extension("httpfs")
        connection.execute("LOAD httpfs")
    host = endpoint.removeprefix("http://")
    where = f"ENDPOINT '{host}', URL_STYLE 'path', USE_SSL false, REGION 'here'"
    connection.execute(f"CREATE SECRET (TYPE s3, {where}, KEY_ID '', SECRET '')")
began = time.monotonic()
table = connection.execute(
    f"""SELECT spine.*, f0, f1, f2, f3 FROM read_parquet('{spine}') AS spine
    ASOF LEFT JOIN read_parquet('{path}') AS rows ON spine.id = rows.id AND rows.ts <= spine.event_timestamp"""
).to_arrow_table()
assert table.num_rows > 0
print(time.monotonic() - began)
