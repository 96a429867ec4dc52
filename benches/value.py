#!/usr/bin/env python3
"""What customers are worth: RFM and the summary of the lifetime models beside DuckDB, and what the fits cost.

usage: value.py [--scale 10] [--program PATH] [--rounds 3] [--data DIR] [--home DIR]

The orders of generate.py (10 million of 1,000,000 customers at scale 10): ours loaded into a table clustered by customer and time, and as they
come; DuckDB on the generated Parquet files, and on its own storage sorted by customer and time. Loading is not timed. RFM is all of `rfm`:
lines made orders, days, counts and sums of a year, five classes each at type-7 quantiles, equal values alike, the eight segments; DuckDB computes the same
by its own SQL; once more with each row an order, which saves both the orders. The customers of each score and segment must be the same, or the exit code is 1. So must the summary's: customers, repeat
purchases, and the sums of the times and of the mean payments. The fits have no peer in SQL; their seconds are printed. CPU seconds are user and system of a
process with two threads, the start of the program included; the least of the rounds.
"""

import argparse
import csv
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

PACKAGES = ["duckdb", "numpy", "pyarrow"]
AS_OF = "2026-10-31"
ORDERS = "(SELECT customer_id, order_id, ordered_at, amount, CASE WHEN status = 'paid' THEN 'completed' ELSE 'cancelled' END AS status FROM orders)"

RFM = "SELECT rfm, segment, count(*), sum(monetary) FROM rfm({of}, customer => 'customer_id', as_of => DATE '" + AS_OF + "', window_days => 365) GROUP BY rfm, segment ORDER BY rfm, segment"

OURS = {
    "rfm": RFM.format(of=ORDERS),
    "rfm, a row an order": RFM.format(of=ORDERS.replace("order_id, ", "")),
    "btyd_summary": f"SELECT count(*), sum(x), round(sum(t_x)::numeric, 2), round(sum(t)::numeric, 2), round(sum(m_x), 0) FROM btyd_summary({ORDERS}, customer => 'customer_id', cal_end => DATE '{AS_OF}')",
    "bgnbd_fit": f"SELECT bgnbd_fit(x, t_x, t) FROM btyd_summary({ORDERS}, customer => 'customer_id', cal_end => DATE '{AS_OF}')",
    "pnbd_fit": f"SELECT pnbd_fit(x, t_x, t) FROM btyd_summary({ORDERS}, customer => 'customer_id', cal_end => DATE '{AS_OF}')",
    "gg_fit": f"SELECT gg_fit(x, m_x) FROM btyd_summary({ORDERS}, customer => 'customer_id', cal_end => DATE '{AS_OF}')",
}

LINES = """(SELECT customer_id, min(ordered_at::DATE) AS day, sum(amount) AS amount, bool_and(status <> 'paid') AS is_void
  FROM orders WHERE ordered_at::DATE <= DATE '""" + AS_OF + """' GROUP BY customer_id, order_id)"""
ROWS = "(SELECT customer_id, ordered_at::DATE AS day, amount, status <> 'paid' AS is_void FROM orders)"
PEER_RFM = f"""
WITH people AS (
  SELECT customer_id, date_diff('day', max(day), DATE '{AS_OF}') AS r, count(*) AS f, sum(amount) AS m
  FROM {{of}} AS o WHERE NOT is_void AND amount > 0 AND day > DATE '{AS_OF}' - 365 AND day <= DATE '{AS_OF}' GROUP BY customer_id
), cuts AS (
  SELECT quantile_cont(r, [0.2, 0.4, 0.6, 0.8]) AS rc, quantile_cont(f, [0.2, 0.4, 0.6, 0.8]) AS fc, quantile_cont(m, [0.2, 0.4, 0.6, 0.8]) AS mc,
    avg(r) AS ra, avg(f) AS fa, avg(m) AS ma FROM people
), scored AS (
  SELECT 5 - (r > rc[1])::INT - (r > rc[2])::INT - (r > rc[3])::INT - (r > rc[4])::INT AS rs,
    1 + (f > fc[1])::INT + (f > fc[2])::INT + (f > fc[3])::INT + (f > fc[4])::INT AS fs,
    1 + (m > mc[1])::INT + (m > mc[2])::INT + (m > mc[3])::INT + (m > mc[4])::INT AS ms, r < ra AS rh, f > fa AS fh, m > ma AS mh, m
  FROM people, cuts
)
SELECT rs::VARCHAR || fs || ms AS rfm, (CASE WHEN mh THEN 'important_' ELSE 'general_' END) ||
    (CASE WHEN rh AND fh THEN 'value' WHEN rh THEN 'develop' WHEN fh THEN 'keep' ELSE 'winback' END) AS segment, count(*), sum(m)
FROM scored GROUP BY ALL ORDER BY ALL"""

THEIRS = {
    "rfm": PEER_RFM.format(of=LINES),
    "rfm, a row an order": PEER_RFM.format(of=ROWS),
    "btyd_summary": f"""
WITH days AS (SELECT customer_id, day, sum(amount) AS paid FROM {LINES} AS o WHERE NOT is_void AND amount >= 0 GROUP BY customer_id, day),
  each AS (SELECT count(*) - 1 AS x, (max(day) - min(day)) / 7.0 AS t_x, (DATE '{AS_OF}' - min(day)) / 7.0 AS t,
    (sum(paid) - arg_min(paid, day)) / nullif(count(*) - 1, 0) AS m_x FROM days GROUP BY customer_id)
SELECT count(*), sum(x), round(sum(t_x), 2), round(sum(t), 2), round(sum(m_x), 0) FROM each""",
}

PEER = """
import duckdb, sys
c = duckdb.connect(sys.argv[1] if sys.argv[1].endswith('.duckdb') else ':memory:')
c.execute("SET threads = 2"); c.execute("SET enable_progress_bar = false"); c.execute("SET TimeZone = 'UTC'")
if not sys.argv[1].endswith('.duckdb'):
    c.execute(f"CREATE VIEW orders AS SELECT * FROM '{sys.argv[1]}/*.parquet'")
print('head')
[print(*row, sep=',') for row in c.execute(sys.argv[2]).fetchall()]
"""
CLUSTERED = "CREATE TABLE orders (order_id BIGINT, customer_id BIGINT, ordered_at TIMESTAMPTZ, status TEXT, amount NUMERIC(38, 6)) CLUSTER BY (customer_id, ordered_at) BUCKETS 4"


def measured(command):
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return list(csv.reader(done.stdout.splitlines()))[1:], cpu, time.time() - start


def least(command, rounds):
    runs = [measured(command) for _ in range(rounds)]
    return runs[0][0], min(run[1] for run in runs), min(run[2] for run in runs)


def same(ours, theirs):
    """Rows of texts and numbers: numbers as numbers."""
    def read(value):
        try:
            return round(float(value), 2)
        except ValueError:
            return value
    return [[read(value) for value in row] for row in ours] == [[read(value) for value in row] for row in theirs]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/clientele")
    parser.add_argument("--scale", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", help="what generate.py made, from before")
    parser.add_argument("--home", default="~/.cache/clientele-bench")
    args = parser.parse_args()
    python = pathlib.Path(args.home).expanduser() / "value" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    with tempfile.TemporaryDirectory() as home:
        data = pathlib.Path(args.data or pathlib.Path(home) / "data")
        if not args.data:
            here = pathlib.Path(__file__).resolve().parent
            subprocess.run([python, here / "generate.py", "--out", data, "--scale", str(args.scale), "--only", "orders"], check=True)
        warehouse, native = pathlib.Path(home) / "warehouse", pathlib.Path(home) / "orders.duckdb"

        def ours(text):
            return [args.program, "sql", "--dir", warehouse, "--format", "csv", text]

        for table, before in (("as_they_come", None), ("orders", CLUSTERED)):
            if before:
                subprocess.run(ours(before), check=True, capture_output=True)
            subprocess.run([args.program, "load", "--dir", warehouse, table, *sorted((data / "orders").glob("*.parquet"))], check=True, stderr=subprocess.DEVNULL)
        subprocess.run(ours("COMPACT TABLE orders"), check=True, capture_output=True)
        subprocess.run([python, "-c", "import duckdb, sys; duckdb.connect(sys.argv[1]).execute(f\"CREATE TABLE orders AS SELECT * FROM '{sys.argv[2]}/*.parquet' ORDER BY customer_id, ordered_at\")", native, data / "orders"], check=True, capture_output=True)
        [[orders, customers]], _, _ = measured(ours("SELECT count(*), count(DISTINCT customer_id) FROM orders"))
        print(f"{orders} orders of {customers} customers\n\n| CPU s / wall s | clientele, by customer | as they come | DuckDB, Parquet | DuckDB, sorted | CPU of its better one / of our better one |\n|---|---|---|---|---|---|", flush=True)
        is_same = True
        for name, text in OURS.items():
            of_peers = THEIRS.get(name)
            commands = [ours(text)]
            if of_peers:
                commands += [ours(text.replace("FROM orders", "FROM as_they_come"))]
                commands += [[python, "-c", PEER, where, of_peers] for where in (data / "orders", native)]
            done = [least(command, args.rounds if of_peers else 1) for command in commands]
            cells = " | ".join(f"{cpu:.2f} / {wall:.2f}" for _, cpu, wall in done)
            if not of_peers:
                print(f"| {name} | {cells} | | | | |   {' '.join(done[0][0][0])}", flush=True)
                continue
            agrees = all(same(rows, done[-1][0]) for rows, _, _ in done)
            is_same &= agrees
            cpu = [seconds for _, seconds, _ in done]
            print(f"| {name} | {cells} | {min(cpu[2:]) / min(cpu[:2]):.2f} |{'' if agrees else '   NOT THE SAME'}", flush=True)
        sys.exit(0 if is_same else 1)


if __name__ == "__main__":
    main()
