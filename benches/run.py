#!/usr/bin/env python3
"""Ours and the peers, side by side, on the same rows of the same machine in the same run.

usage: run.py [--scale 0.1] [--queries a,b] [--engines a,b] [--rounds 3] [--threads 2] [--json FILE] [--program PATH]

One command: it makes an environment of its own for Python (--home, by default ~/.cache/clientele-bench), installs DuckDB and
ClickHouse (chdb) there, generates the data, loads it into every engine and runs the queries.

Engines take turns, a fresh process for each engine, query and round, bound to as many processors as there are threads; within a
process a query runs three times. `-parquet` reads the generated files, `-native` the engine's own storage, sorted by customer and
time; ours is the real server over its own storage, asked through the PostgreSQL protocol. Loading is not timed.

Shown are medians: CPU seconds (user and system of the engine's process), wall seconds, and the peak of resident memory in MB.
The ratio is the best peer's CPU seconds over ours: above 1 we are cheaper. Answers must be the same, cell by cell (floats to
1e-9): if they are not, it is said, and the exit code is 1.
"""

import argparse
import datetime
import decimal
import json
import math
import os
import pathlib
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
PACKAGES = ["numpy", "pyarrow", "pytz", "duckdb", "chdb", "psycopg[binary]"]
ENGINES = ["clientele", "duckdb-parquet", "duckdb-native", "clickhouse-parquet", "clickhouse-native"]
TABLES = {"customers": "customer_id", "orders": "customer_id, ordered_at", "events": "customer_id, occurred_at"}
TIMES_EACH = 3

# ------------------------------------------------------------------------------------------------------------- queries
# Plain SQL that all of them take; an engine's own spelling where it has a better one. Every answer has few rows.
FUNNEL_STEPS = ("product_view", "add_to_cart", "checkout", "pay")


def funnel_duckdb():
    """The cheapest formulation that we found: running maxima over the events of each customer."""
    parts = ["e AS (SELECT customer_id, occurred_at AS t, event FROM {events} WHERE event IN ('%s'))" % "','".join(FUNNEL_STEPS)]
    before = "e"
    for i, step in enumerate(FUNNEL_STEPS[:-1], 1):
        when = f"event = '{step}'" if i == 1 else f"event = '{step}' AND t <= s{i - 1} + INTERVAL 7 DAY"
        value = "t" if i == 1 else f"s{i - 1}"
        over = "OVER (PARTITION BY customer_id ORDER BY t ROWS UNBOUNDED PRECEDING)"
        parts.append(f"f{i} AS (SELECT *, max(CASE WHEN {when} THEN {value} END) {over} AS s{i} FROM {before})")
        before = f"f{i}"
    level = "max(CASE WHEN event = 'pay' AND t <= s3 + INTERVAL 7 DAY THEN 4 WHEN s3 IS NOT NULL THEN 3 WHEN s2 IS NOT NULL THEN 2 WHEN s1 IS NOT NULL THEN 1 ELSE 0 END)"
    parts.append(f"l AS (SELECT customer_id, {level} AS level FROM {before} GROUP BY customer_id)")
    counts = ", ".join(f"count(*) FILTER (WHERE level >= {n})" for n in (1, 2, 3, 4))
    return f"WITH {', '.join(parts)} SELECT {counts} FROM l"


def steps(template):
    return ", ".join(template.format(step) for step in FUNNEL_STEPS)


QUERIES = {
    "scan": {"sql": "SELECT count(*), count(amount), sum(amount), min(occurred_at), max(occurred_at) FROM {events}"},
    "filter": {"sql": "SELECT count(*), sum(amount) FROM {events} WHERE event = 'pay' AND channel = 'app'"},
    "week": {"sql": "SELECT event, count(*) FROM {events} WHERE occurred_at >= TIMESTAMP '2026-10-25 00:00:00' GROUP BY event"},
    "lookup": {"sql": "SELECT customer_id, province, member_level, registered_at FROM {customers} WHERE customer_id = {lookup}"},
    "timeline": {"sql": "SELECT event_id, occurred_at, event, channel FROM {events} WHERE customer_id = {lookup} ORDER BY occurred_at DESC, event_id LIMIT 50"},
    "distinct": {"sql": "SELECT count(DISTINCT customer_id) FROM {events}"},
    "distinct by": {"sql": "SELECT channel, event, count(DISTINCT customer_id) FROM {events} GROUP BY channel, event"},
    "per customer": {"sql": "SELECT sum(n), max(n), sum(m) FROM (SELECT customer_id, count(*) AS n, sum(amount) AS m FROM {events} GROUP BY customer_id) AS c"},
    "pv uv": {"sql": "SELECT CAST(occurred_at AS DATE), channel, count(*), count(DISTINCT customer_id) FROM {events} GROUP BY 1, 2"},
    "rfm": {"sql": "SELECT r, f, count(*) FROM (SELECT ntile(5) OVER (ORDER BY last, customer_id) AS r, ntile(5) OVER (ORDER BY n, customer_id) AS f FROM (SELECT customer_id, max(ordered_at) AS last, count(*) AS n FROM {orders} WHERE status = 'paid' GROUP BY customer_id) AS o) AS s GROUP BY r, f"},
    "join": {"sql": "SELECT c.province, count(*), sum(o.amount) FROM {orders} AS o JOIN {customers} AS c ON c.customer_id = o.customer_id WHERE o.status = 'paid' AND c.member_level >= 3 GROUP BY c.province"},
    "funnel": {
        "clientele": "SELECT " + ", ".join(f"count(*) FILTER (WHERE level >= {n})" for n in (1, 2, 3, 4))
        + " FROM (SELECT window_funnel(INTERVAL '7 days', 'default', occurred_at, " + steps("event = '{}'") + ") AS level FROM {events} GROUP BY customer_id) AS f",
        "duckdb": funnel_duckdb(),
        "clickhouse": "SELECT " + ", ".join(f"countIf(level >= {n})" for n in (1, 2, 3, 4))
        + " FROM (SELECT windowFunnel(604800000000)(toUInt64(toUnixTimestamp64Micro(occurred_at)), " + steps("event = '{}'") + ") AS level FROM {events} GROUP BY customer_id)",
    },
}


NAMED = "customer => 'customer_id', time => 'occurred_at'"
STEPS = "ARRAY[" + ", ".join(f"'{step}'" for step in FUNNEL_STEPS) + "]"
IN_STEPS = "','".join(FUNNEL_STEPS)

# By the day of its first step, how far a funnel came; each of a customer's days by its best attempt.
QUERIES["funnel by day"] = {
    "clientele": "SELECT bucket, " + ", ".join(f"sum(users) FILTER (WHERE step = {n})" for n in (1, 2, 3, 4))
    + f" FROM funnel_trend({{events}}, {NAMED}, steps => {STEPS}, window => INTERVAL '7 days') GROUP BY bucket",
    # The earliest next step of each kind, carried backward by nearest joins.
    "duckdb": f"""WITH e AS MATERIALIZED (SELECT customer_id, occurred_at AS t, event AS n FROM {{events}} WHERE event IN ('{IN_STEPS}')),
        p AS (SELECT customer_id, t FROM e WHERE n = 'pay'),
        k AS (SELECT a.customer_id, a.t, p.t AS t4 FROM (FROM e WHERE n = 'checkout') a ASOF LEFT JOIN p ON a.customer_id = p.customer_id AND a.t <= p.t),
        c AS (SELECT a.customer_id, a.t, k.t AS t3, t4 FROM (FROM e WHERE n = 'add_to_cart') a ASOF LEFT JOIN k ON a.customer_id = k.customer_id AND a.t <= k.t),
        v AS (SELECT a.customer_id, a.t, c.t AS t2, t3, t4 FROM (FROM e WHERE n = 'product_view') a ASOF LEFT JOIN c ON a.customer_id = c.customer_id AND a.t <= c.t),
        l AS (SELECT customer_id, CAST(t AS DATE) AS d, max(CASE WHEN t4 <= t + INTERVAL 7 DAY THEN 4 WHEN t3 <= t + INTERVAL 7 DAY THEN 3 WHEN t2 <= t + INTERVAL 7 DAY THEN 2 ELSE 1 END) AS level FROM v GROUP BY 1, 2)
        SELECT d, count(*), count(*) FILTER (WHERE level >= 2), count(*) FILTER (WHERE level >= 3), count(*) FILTER (WHERE level >= 4) FROM l GROUP BY d""",
    # Each later step is replayed into the days that it may belong to.
    "clickhouse": f"""SELECT d, countIf(l >= 1), countIf(l >= 2), countIf(l >= 3), countIf(l >= 4) FROM (
        SELECT customer_id, d, windowFunnel(604800000000)(t, n = 'product_view', n = 'add_to_cart', n = 'checkout', n = 'pay') AS l
        FROM (SELECT customer_id, toUInt64(toUnixTimestamp64Micro(occurred_at)) AS t, event AS n, arrayJoin(arrayMap(i -> toDate(occurred_at) - i, range(if(n = 'product_view', 1, 8)))) AS d
            FROM {{events}} WHERE event IN ('{IN_STEPS}')) GROUP BY customer_id, d HAVING l >= 1) GROUP BY d""",
}

# Who logged in on a day for the first time, and paid so many days later.
QUERIES["retention"] = {
    "clientele": f"SELECT cohort, period, retained FROM retention_matrix({{events}}, {NAMED}, start => 'login', back => 'pay', kind => 'first_time', periods => 30) WHERE retained > 0",
    "duckdb": """WITH r AS (SELECT customer_id, min(CAST(occurred_at AS DATE)) AS d0 FROM {events} WHERE event = 'login' GROUP BY 1),
        a AS (SELECT DISTINCT e.customer_id, d0, CAST(e.occurred_at AS DATE) - d0 AS n FROM {events} AS e JOIN r ON e.customer_id = r.customer_id WHERE e.event = 'pay')
        SELECT d0, n, count(*) FROM a WHERE n BETWEEN 0 AND 30 GROUP BY 1, 2""",
    "clickhouse": """WITH toDate('2026-08-01') AS day, m AS (SELECT customer_id, minIf(toDate(occurred_at), event = 'login') AS d0,
            groupBitOrIf(bitShiftLeft(toUInt128(1), toUInt8(toDate(occurred_at) - day)), event = 'pay') AS b FROM {events} GROUP BY customer_id HAVING d0 > toDate('2000-01-01'))
        SELECT d0, n, count() FROM m ARRAY JOIN range(31) AS n WHERE bitAnd(bitShiftRight(b, toUInt8(d0 - day + n)), 1) != 0 GROUP BY d0, n""",
}

# What was shared last before a payment, and all of seven days before in equal parts.
QUERIES["attribution"] = {
    "clientele": f"""SELECT channel, sum(conversions) FILTER (WHERE model = 'last'), sum(value) FILTER (WHERE model = 'last'),
            sum(conversions) FILTER (WHERE model = 'linear'), sum(value) FILTER (WHERE model = 'linear')
        FROM attribution_report({{events}}, {NAMED}, conversion => 'pay', touch => 'share', lookback => INTERVAL '7 days', model => ARRAY['last', 'linear']) WHERE channel IS NOT NULL GROUP BY channel""",
    "duckdb": """WITH p AS (SELECT event_id, customer_id, occurred_at AS t, amount FROM {events} WHERE event = 'pay'),
        c AS (SELECT customer_id, occurred_at AS t, channel FROM {events} WHERE event = 'share'),
        j AS (SELECT p.event_id, amount, channel, count(*) OVER (PARTITION BY p.event_id) AS n, row_number() OVER (PARTITION BY p.event_id ORDER BY c.t DESC, channel DESC) AS rn
            FROM p JOIN c ON p.customer_id = c.customer_id AND c.t <= p.t AND c.t > p.t - INTERVAL 7 DAY)
        SELECT channel, count(*) FILTER (rn = 1), sum(amount) FILTER (rn = 1), sum(1.0::DOUBLE / n), sum(amount::DOUBLE / n) FROM j GROUP BY 1""",
    # Arrays of touches and payments of each customer; no join.
    "clickhouse": """WITH s AS (SELECT customer_id, arraySort(groupArrayIf((toUnixTimestamp64Micro(occurred_at), toString(channel)), event = 'share')) AS c,
            groupArrayIf((toUnixTimestamp64Micro(occurred_at), assumeNotNull(toFloat64(amount))), event = 'pay') AS p
            FROM {events} WHERE event IN ('pay', 'share') GROUP BY customer_id HAVING length(c) > 0 AND length(p) > 0),
        j AS (SELECT arrayJoin(p) AS y, arrayMap(x -> x.2, arrayFilter(x -> x.1 <= y.1 AND x.1 > y.1 - 604800000000, c)) AS k, length(k) AS n FROM s WHERE n > 0)
        SELECT channel, sum(i = n), sumIf(a, i = n), sum(1 / n), sum(a / n) FROM (SELECT arrayJoin(arrayZip(k, arrayEnumerate(k))) AS z, z.1 AS channel, z.2 AS i, y.2 AS a, n FROM j) GROUP BY channel""",
}

# The first five events of each visit.
CODES = "['page_view','search','product_view','add_to_cart','checkout','pay','refund','share','coupon_claim','login','register','review']"
QUERIES["paths"] = {
    "clientele": f"""SELECT CASE WHEN cardinality(path) = 5 THEN array_to_string(path, '>') ELSE '(short)' END AS path, CAST(sum(users) AS BIGINT) AS c
        FROM path_top({{events}}, {NAMED}, repeats => 'keep', count => 'sessions', top => 1000000) GROUP BY 1 ORDER BY c DESC, path LIMIT 21""",
    # Codes instead of names, one packed lead instead of eight.
    "duckdb": f"""WITH a AS (SELECT customer_id, occurred_at AS t, list_position({CODES}, event)::BIGINT AS n FROM {{events}}),
        b AS (SELECT n, t, lag(t) OVER w AS p, lead(t) OVER w AS t1, lead(t, 2) OVER w AS t2, lead(t, 3) OVER w AS t3, lead(t, 4) OVER w AS t4,
            lead(n) OVER w AS n1, lead(n, 2) OVER w AS n2, lead(n, 3) OVER w AS n3, lead(n, 4) OVER w AS n4 FROM a WINDOW w AS (PARTITION BY customer_id ORDER BY t)),
        s AS (SELECT CASE WHEN t1 - t <= INTERVAL 30 MINUTE AND t2 - t1 <= INTERVAL 30 MINUTE AND t3 - t2 <= INTERVAL 30 MINUTE AND t4 - t3 <= INTERVAL 30 MINUTE
            THEN (((n * 16 + n1) * 16 + n2) * 16 + n3) * 16 + n4 ELSE 0 END AS k FROM b WHERE p IS NULL OR t - p > INTERVAL 30 MINUTE),
        g AS (SELECT k, count(*) AS c FROM s GROUP BY 1), nm AS (SELECT {CODES} AS m)
        SELECT CASE WHEN k = 0 THEN '(short)' ELSE m[(k >> 16) & 15] || '>' || m[(k >> 12) & 15] || '>' || m[(k >> 8) & 15] || '>' || m[(k >> 4) & 15] || '>' || m[k & 15] END AS path, c
        FROM g, nm ORDER BY c DESC, path LIMIT 21""",
    # Codes packed with the time in one number, so that the sort is one of numbers.
    "clickhouse": f"""WITH s AS (SELECT arraySort(groupArray(bitOr(bitShiftLeft(toUInt64(toUnixTimestamp64Micro(occurred_at)), 4), toUInt64(indexOf({CODES}, toString(event)))))) AS e FROM {{events}} GROUP BY customer_id),
        x AS (SELECT arrayJoin(arraySplit((y, g) -> g > 28800000015, e, arrayDifference(e))) AS q FROM s),
        g AS (SELECT if(length(q) < 5, [], arrayMap(v -> toUInt8(bitAnd(v, 15)), arraySlice(q, 1, 5))) AS k, count() AS c FROM x GROUP BY k)
        SELECT if(empty(k), '(short)', arrayStringConcat(arrayMap(v -> {CODES}[v], k), '>')) AS path, c FROM g ORDER BY c DESC, path LIMIT 21""",
}


def query_for(engine, name):
    spellings = QUERIES[name]
    return spellings.get(engine.split("-")[0], spellings.get("sql"))


# ------------------------------------------------------------------------------------------- the engines, each in a process
class Duckdb:
    def __init__(self, data, threads, is_native):
        import duckdb

        path = f"{data}/native.duckdb"
        if is_native and not os.path.exists(path):
            made = duckdb.connect(path + ".new")
            for table, order in TABLES.items():
                made.execute(f"CREATE TABLE {table} AS SELECT * FROM read_parquet('{data}/{table}/*.parquet') ORDER BY {order}")
            made.close()
            os.rename(path + ".new", path)
        self.connection = duckdb.connect(path, read_only=True) if is_native else duckdb.connect()
        self.connection.execute(f"SET threads = {threads}")
        self.connection.execute("SET TimeZone = 'UTC'")
        self.names = {t: t if is_native else f"read_parquet('{data}/{t}/*.parquet')" for t in TABLES}

    def run(self, sql):
        return self.connection.execute(sql).fetchall()


class Clickhouse:
    def __init__(self, data, threads, is_native):
        from chdb import session

        path = f"{data}/native.clickhouse"
        is_new = is_native and not os.path.exists(f"{path}/complete")
        if is_new:
            shutil.rmtree(path, ignore_errors=True)
        self.session = session.Session(path) if is_native else session.Session()
        self.session.query(f"SET max_threads = {threads}")
        self.session.query("SET session_timezone = 'UTC'")
        kinds = {}
        for table in TABLES:
            described = self.session.query(f"DESCRIBE file('{data}/{table}/*.parquet', Parquet) FORMAT TSVRaw").bytes().decode()
            columns = [line.split("\t")[:2] for line in described.strip().split("\n")]
            # Keys that may be NULL are slow; only the amount of an event is.
            plain = lambda name, kind: kind if name == "amount" else kind.removeprefix("Nullable(").removesuffix(")") if kind.startswith("Nullable(") else kind
            kinds[table] = [(name, plain(name, kind)) for name, kind in columns]
        files = {t: "file('%s/%s/*.parquet', Parquet, '%s')" % (data, t, ", ".join(f"{n} {k}" for n, k in kinds[t]).replace("'", "\\'")) for t in TABLES}
        if is_new:
            self.session.query("CREATE DATABASE IF NOT EXISTS n")
            for table, order in TABLES.items():
                words = lambda name, kind: f"{name} LowCardinality(String)" if kind == "String" else f"{name} {kind}"
                columns = ", ".join(words(*column) for column in kinds[table])
                self.session.query(f"CREATE TABLE n.{table} ({columns}) ENGINE = MergeTree ORDER BY ({order})")
                self.session.query(f"INSERT INTO n.{table} SELECT * FROM {files[table]}")
                self.session.query(f"OPTIMIZE TABLE n.{table} FINAL")
            pathlib.Path(path, "complete").touch()
        self.names = {t: f"n.{t}" for t in TABLES} if is_native else files

    def run(self, sql):
        import pyarrow

        answer = self.session.query(sql, "ArrowStream").bytes()
        if not answer:
            return []
        table = pyarrow.ipc.open_stream(answer).read_all()
        return list(zip(*[column.to_pylist() for column in table.columns])) if table.num_rows else []


class Clientele:
    """The real server in a process of its own; its CPU time and memory are what counts."""

    def __init__(self, data, threads, program):
        import psycopg

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = open(f"{data}/server.log", "ab")
        listen = ["serve", "--dir", f"{data}/warehouse", "--listen", f"127.0.0.1:{port}"]
        environment = {**os.environ, "CLIENTELE_STORAGE__COMPACT_EVERY_S": "0"}
        self.process = subprocess.Popen([program, *listen], stdout=subprocess.DEVNULL, stderr=log, env=environment)
        self.connection = None
        for _ in range(200):
            try:
                self.connection = psycopg.connect(host="127.0.0.1", port=port, user="admin", dbname="clientele", autocommit=True)
                break
            except psycopg.OperationalError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        if self.connection is None:
            self.close()
            raise RuntimeError(f"{program} serve does not answer; see {data}/server.log")
        self.names = {t: t for t in TABLES}

    def run(self, sql):
        return self.connection.execute(sql).fetchall()

    def cpu(self):
        # Nanoseconds of each thread; the process's own clock ticks a hundred times a second.
        threads = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def peak_mb(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024

    def close(self):
        if self.connection is not None:
            self.connection.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)


def own_cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def plain(cell):
    """A value as text that two engines agree on."""
    if isinstance(cell, bool) or cell is None:
        return cell
    if isinstance(cell, (int, float)):
        return cell
    if isinstance(cell, decimal.Decimal):
        return float(cell)
    if isinstance(cell, datetime.datetime):
        at = cell if cell.tzinfo is None else cell.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        return at.isoformat()
    return str(cell)


def work(args):
    """In a process of its own: one engine, one query, a few times."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: args.threads]))
    lookup = str(json.loads(pathlib.Path(args.data, "manifest.json").read_text())["lookup"])
    engine, _, storage = args.engine.partition("-")
    if engine == "clientele":
        runner = Clientele(args.data, args.threads, args.program)
    else:
        runner = {"duckdb": Duckdb, "clickhouse": Clickhouse}[engine](args.data, args.threads, storage == "native")
    if args.build:
        return
    try:
        sql = query_for(args.engine, args.query).replace("{lookup}", lookup)
        for table, name in runner.names.items():
            sql = sql.replace("{%s}" % table, name)
        cpu_of = runner.cpu if engine == "clientele" else own_cpu
        walls, cpus, rows = [], [], []
        for _ in range(TIMES_EACH):
            cpu, started = cpu_of(), time.monotonic()
            rows = runner.run(sql)
            walls.append(time.monotonic() - started)
            cpus.append(cpu_of() - cpu)
        peak = runner.peak_mb() if engine == "clientele" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    finally:
        if engine == "clientele":
            runner.close()
    print(json.dumps({"wall": walls, "cpu": cpus, "peak_mb": peak, "rows": [[plain(cell) for cell in row] for row in rows]}))


# ------------------------------------------------------------------------------------------------------------ the run
def is_number(cell):
    return isinstance(cell, (int, float)) and not isinstance(cell, bool)


def is_same(x, y):
    """Whole numbers, texts and NULL exactly; where one is no whole number, to 1e-9."""
    if not (is_number(x) and is_number(y)):
        return x == y and type(x) is type(y)
    if isinstance(x, int) and isinstance(y, int):
        return x == y
    if math.isnan(x) or math.isnan(y):
        return math.isnan(x) and math.isnan(y)
    return abs(x - y) <= 1e-9 * max(abs(x), abs(y), 1)


def agree(one, other):
    key = lambda row: [f"{cell:.6g}" if is_number(cell) else str(cell) for cell in row]
    pairs = zip(sorted(one, key=key), sorted(other, key=key))
    return len(one) == len(other) and all(len(a) == len(b) and all(map(is_same, a, b)) for a, b in pairs)


def prepare(args):
    """Python's packages, the data, and our own warehouse."""
    home = pathlib.Path(args.home).expanduser()
    python = home / "venv" / "bin" / "python"
    if not python.exists():
        print(f"installing {', '.join(PACKAGES)} into {home / 'venv'}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    data = home / f"scale-{args.scale:g}"
    if not (data / "manifest.json").exists():
        print(f"generating {data}", file=sys.stderr)
        subprocess.run([python, HERE / "generate.py", "--scale", str(args.scale), "--out", data], check=True, stdout=sys.stderr)
    warehouse = data / "warehouse"
    if "clientele" in args.engines and not (data / "loaded").exists():
        print(f"loading {warehouse}", file=sys.stderr)
        shutil.rmtree(warehouse, ignore_errors=True)

        def run(*words):
            done = subprocess.run([args.program, *words, "--dir", warehouse], capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"{args.program} {words[0]}: {done.stderr.strip()}")
            return done.stdout

        run("user", "list")
        run("sql", "CREATE TABLE events (event_id BIGINT, customer_id BIGINT, occurred_at TIMESTAMPTZ, event TEXT, channel TEXT, amount NUMERIC(18,4)) CLUSTER BY (customer_id, occurred_at); "
            "CREATE TABLE orders (order_id BIGINT, customer_id BIGINT, ordered_at TIMESTAMPTZ, status TEXT, amount NUMERIC(18,4)) CLUSTER BY (customer_id, ordered_at)")
        for table in TABLES:
            run("load", table, str(data / table))
        run("compact")
        events = json.loads((data / "manifest.json").read_text())["events"]
        if str(events) not in run("sql", "--format", "csv", "SELECT count(*) FROM events"):
            sys.exit(f"{warehouse} does not hold the {events} events that were generated")
        (data / "loaded").touch()
    # In processes of their own, so that no query is measured with them.
    for engine in args.engines:
        if engine.endswith("native"):
            words = ["--worker", "--build", "--data", data, "--engine", engine, "--threads", args.threads]
            subprocess.run([python, __file__, *map(str, words)], check=True)
    return python, data


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--queries", type=lambda text: text.split(","), default=list(QUERIES))
    parser.add_argument("--engines", type=lambda text: text.split(","), default=ENGINES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--home", default="~/.cache/clientele-bench")
    parser.add_argument("--program", default=os.environ.get("CLIENTELE_PROGRAM", "target/release/clientele"))
    parser.add_argument("--json")
    parser.add_argument("--build", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--query", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args)
    for what, given, known in (("query", args.queries, QUERIES), ("engine", args.engines, ENGINES)):
        for name in given:
            if name not in known:
                parser.error(f"{what} {name!r} is not known; there are: {', '.join(known)}")
    processors = len(os.sched_getaffinity(0))
    if args.scale <= 0 or args.rounds < 1 or not 1 <= args.threads <= processors:
        parser.error(f"--scale is above 0, --rounds at least 1, --threads from 1 to {processors}, the processors here")
    if args.json and not pathlib.Path(args.json).resolve().parent.is_dir():
        parser.error(f"--json: there is no folder {pathlib.Path(args.json).resolve().parent}")
    if "clientele" in args.engines and not pathlib.Path(args.program).exists():
        sys.exit(f"{args.program} is missing: cargo build --release first, or name it with --program")
    args.program = str(pathlib.Path(args.program).resolve())
    python, data = prepare(args)
    answers, measured, wrong = {}, {}, []
    for number in range(args.rounds):
        for query in args.queries:
            for engine in args.engines:
                words = ["--worker", "--data", data, "--engine", engine, "--query", query, "--threads", args.threads, "--program", args.program]
                done = subprocess.run([python, __file__, *map(str, words)], capture_output=True, text=True)
                if done.returncode != 0:
                    sys.exit(f"{engine}, {query}: {done.stderr.strip().splitlines()[-1:]}")
                result = json.loads(done.stdout.splitlines()[-1])
                known = answers.setdefault(query, (engine, result["rows"]))
                if not agree(known[1], result["rows"]):
                    wrong.append(f"{query}: {engine} and {known[0]} give different answers")
                into = measured.setdefault((query, engine), {"cpu": [], "wall": [], "peak_mb": []})
                into["cpu"] += result["cpu"]
                into["wall"] += result["wall"]
                into["peak_mb"].append(result["peak_mb"])
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
    median = {key: {name: statistics.median(values) for name, values in kinds.items()} for key, kinds in measured.items()}
    cell = lambda m: f"{m['cpu']:.3f} / {m['wall']:.3f} / {m['peak_mb']:.0f}"
    peers = [engine for engine in args.engines if engine != "clientele"]
    print(f"scale {args.scale:g}, {args.threads} threads, medians of {args.rounds} rounds x {TIMES_EACH}: CPU s / wall s / peak MB\n")
    print("| query | " + " | ".join(args.engines) + " | best parquet peer / ours | best native peer / ours |")
    print("|---" * (len(args.engines) + 3) + "|")
    for query in args.queries:
        row = [cell(median[query, engine]) for engine in args.engines]
        for kind in ("parquet", "native"):
            costs = [median[query, engine]["cpu"] for engine in peers if engine.endswith(kind)]
            ours = median.get((query, "clientele"), {}).get("cpu")
            row.append(f"{min(costs) / ours:.2f}" if costs and ours else "-")
        print(f"| {query} | " + " | ".join(row) + " |")
    if args.json:
        flat = [{"query": query, "engine": engine, **values} for (query, engine), values in median.items()]
        pathlib.Path(args.json).write_text(json.dumps({"scale": args.scale, "threads": args.threads, "median": flat}, indent=1))
    for line in sorted(set(wrong)) or [f"all answers agree, of {len(args.engines)} engines to {len(args.queries)} queries"]:
        print(line, file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
