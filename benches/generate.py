#!/usr/bin/env python3
"""Customers, orders and events of a made-up shop, the same for the same scale and seed.

usage: generate.py --out DIR [--scale 1] [--seed 7] [--only orders]

Scale 1: 100,000 customers, 1,000,000 orders over two years, 10,000,000 events over 90 days, as they come: a Parquet file a
month of orders, one a day of events, in the order of time. What a customer does follows a Pareto law, so most do little and a
few very much; hours have a rhythm. The figures are made for comparing engines, not for learning about shops.
"""

import argparse
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DAY_US = 86_400_000_000
END_US = int(np.datetime64("2026-11-01", "us").astype(np.int64))
CHANNELS = np.array(["app", "mini_program", "h5", "pc_web", "store", "douyin"])
CHANNEL_SHARE = np.array([0.34, 0.27, 0.13, 0.11, 0.05, 0.10])
EVENTS = np.array(["page_view", "search", "product_view", "add_to_cart", "checkout", "pay", "share", "login", "review"])
EVENT_SHARE = np.array([0.31, 0.10, 0.33, 0.08, 0.035, 0.025, 0.02, 0.085, 0.015])
PROVINCES = np.array(["guangdong", "zhejiang", "jiangsu", "shandong", "henan", "sichuan", "hubei", "hunan", "fujian", "anhui"])
STATUSES = np.array(["paid", "paid", "paid", "paid", "refunded", "cancelled"])
# Share of a day's acts in each hour.
HOURS = np.array([1, 0.6, 0.4, 0.3, 0.3, 0.5, 1, 2, 3, 4, 5, 5.5, 6, 5.5, 5, 5, 5, 5, 5.5, 7, 9, 9.5, 8, 4])


def words(values, codes):
    """A text column from codes: few words, many rows."""
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(values)).cast(pa.string())


def times(random, day_us, count):
    hours = random.choice(24, size=count, p=HOURS / HOURS.sum())
    return np.sort(day_us + hours * 3_600_000_000 + random.integers(0, 3_600_000_000, count))


def instants(values):
    return pa.array(values, pa.timestamp("us", tz="UTC"))


def money(cents):
    return pa.array(cents / 100.0).cast(pa.decimal128(18, 4), safe=False)


def write(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, compression="zstd", compression_level=1, row_group_size=256 * 1024)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", choices=["orders"], help="orders and customers, no events")
    args = parser.parse_args()
    customers = int(100_000 * args.scale)
    stream = lambda table, part: np.random.default_rng([args.seed, table, part])

    random = stream(0, 0)
    # Ids are not dense and not in the order of anything.
    ids = np.sort(random.choice(customers * 10, size=customers, replace=False)) + 1_000_000
    weight = random.pareto(1.1, customers) + 0.02
    weight /= weight.sum()
    shuffled = random.permutation(customers)
    write(args.out / "customers" / "customers.parquet", {
        "customer_id": pa.array(ids[shuffled]),
        "province": words(PROVINCES, random.integers(0, len(PROVINCES), customers)),
        "member_level": pa.array(random.choice(5, size=customers, p=[0.5, 0.25, 0.15, 0.07, 0.03])),
        "registered_at": instants(END_US - random.integers(1, 900 * 86_400, customers) * 1_000_000),
    })

    orders = int(1_000_000 * args.scale)
    order_id = 0
    for month in range(24):
        random = stream(1, month)
        count = orders // 24
        at = np.sort(END_US - (24 - month) * 30 * DAY_US + random.integers(0, 30 * DAY_US, count))
        write(args.out / "orders" / f"{month:02}.parquet", {
            "order_id": pa.array(np.arange(order_id, order_id + count)),
            "customer_id": pa.array(ids[random.choice(customers, size=count, p=weight)]),
            "ordered_at": instants(at),
            "status": words(STATUSES, random.integers(0, len(STATUSES), count)),
            "amount": money(np.round(random.lognormal(8.6, 0.9, count))),
        })
        order_id += count

    events = int(10_000_000 * args.scale)
    event_id = 0
    for day in range(0 if args.only else 90):
        random = stream(2, day)
        count = int(events / 90 * random.uniform(0.85, 1.15))
        who = random.choice(customers, size=count, p=weight)
        event = random.choice(len(EVENTS), size=count, p=EVENT_SHARE)
        amount = money(np.round(random.lognormal(8.6, 0.9, count)))
        write(args.out / "events" / f"{day:02}.parquet", {
            "event_id": pa.array(np.arange(event_id, event_id + count)),
            "customer_id": pa.array(ids[who]),
            "occurred_at": instants(times(random, END_US - (90 - day) * DAY_US, count)),
            "event": words(EVENTS, event),
            "channel": words(CHANNELS, random.choice(len(CHANNELS), size=count, p=CHANNEL_SHARE)),
            "amount": pa.compute.if_else(pa.array(event == 5), amount, None),
        })
        event_id += count
    # A customer with some hundred events: not the busiest, not an idle one.
    lookup = int(ids[np.argsort(weight)[int(customers * 0.97)]])
    args.out.joinpath("manifest.json").write_text(json.dumps({"scale": args.scale, "events": event_id, "lookup": lookup}))
    print(f"{customers} customers, {order_id} orders, {event_id} events in {args.out}")


if __name__ == "__main__":
    import pyarrow.compute  # noqa: F401  (used as pa.compute)

    main()
