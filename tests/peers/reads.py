#!/usr/bin/env python3
"""Reads a table of a warehouse the way others do: the Python package deltalake, and DuckDB over the files that it names.

usage: reads.py TABLE_FOLDER COLUMN

Prints the number of rows and the sum of COLUMN, a line a reader.
"""

import sys

import deltalake
import pyarrow.compute as pc


def main():
    table = deltalake.DeltaTable(sys.argv[1])
    rows = table.to_pyarrow_table(columns=[sys.argv[2]])
    print(f"deltalake {rows.num_rows} {pc.sum(rows[sys.argv[2]])}")
    try:
        import duckdb
    except ImportError:
        return
    files = table.file_uris()
    counted = duckdb.execute(f"SELECT count(*), sum({sys.argv[2]}) FROM read_parquet(?)", [files]).fetchone()
    print(f"duckdb {counted[0]} {counted[1]}")


if __name__ == "__main__":
    main()
