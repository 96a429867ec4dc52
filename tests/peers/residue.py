#!/usr/bin/env python3
"""Looks for values in everything that a warehouse has on the disk, with a decoder that is not ours.

usage: residue.py WAREHOUSE VALUE...

Every Parquet file is decoded by pyarrow: its rows, the dictionaries of its columns and the statistics of its column chunks;
checkpoints are Parquet files too. Every JSON document is read, with the documents within its texts. Prints a line a place
that has one of the values, and returns 1 when there is any.
"""

import json
import pathlib
import sys

import pyarrow as pa
import pyarrow.parquet as pq


def texts_of(value):
    """Every text within a decoded value, however deep; a text that is JSON is opened."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from texts_of(key)
            yield from texts_of(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from texts_of(inner)
    elif isinstance(value, str):
        yield value
        if value[:1] in "{[":
            try:
                yield from texts_of(json.loads(value))
            except ValueError:
                pass
    elif value is not None:
        yield str(value)


def in_parquet(path, wanted):
    file = pq.ParquetFile(path)
    texts = [field.name for field in file.schema_arrow if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    for name in texts:
        # Read as dictionaries: each value of a column once.
        column = pq.ParquetFile(path, read_dictionary=[name]).read(columns=[name]).column(0)
        for chunk in column.chunks:
            for value in chunk.dictionary.to_pylist():
                if value is not None and any(want in value for want in wanted):
                    yield f"values of {name}"
    nested = [field.name for field in file.schema_arrow if field.name not in texts]
    for row in file.read(columns=nested).to_pylist():
        for text in texts_of(row):
            if any(want == text or (len(want) > 8 and want in text) for want in wanted):
                yield "other columns"
    metadata = file.metadata
    for group in range(metadata.num_row_groups):
        for at in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(at)
            statistics = chunk.statistics
            if statistics is not None and statistics.has_min_max:
                for bound in (statistics.min, statistics.max):
                    if any(want in str(bound) for want in wanted):
                        yield f"statistics of {chunk.path_in_schema}"


def in_json(path, wanted):
    for line in path.read_text().splitlines() or [""]:
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except ValueError:
            document = path.read_text()
        for text in texts_of(document):
            if any(want in text for want in wanted):
                yield "document"


def main():
    warehouse, wanted = pathlib.Path(sys.argv[1]), sys.argv[2:]
    found = files = 0
    for path in sorted(warehouse.rglob("*")):
        if path.suffix not in (".parquet", ".json") or path.name in ("users.json",):
            continue
        files += 1
        places = in_parquet(path, wanted) if path.suffix == ".parquet" else in_json(path, wanted)
        for place in sorted(set(places)):
            found += 1
            print(f"{path.relative_to(warehouse)}\t{place}")
    print(f"{files} files decoded, {found} places have one of the values", file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
