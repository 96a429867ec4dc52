#!/usr/bin/env python3
"""Makes the sample in this folder: real orders, and generated records, identifiers and events of the same people.

    pip install pyarrow==26.0.1 && python3 generate.py path/to/online_retail/order_lines.parquet

The orders are real (Online Retail, see README.md); everything about who the buyers are is made up here from a fixed seed,
so the answers are known. They are written to answers.json and the tests compare with them. Only `random()` of Python's
generator is used, whose sequence is the same in every version.
"""
import csv
import datetime as dt
import decimal
import gzip
import io
import json
import random
import sys
from collections import defaultdict

import pyarrow as pa
import pyarrow.parquet as pq

UTC = dt.timezone.utc
RNG = random.Random(20111209)


def chance(p):
    return RNG.random() < p


def below(n):
    return int(RNG.random() * n)


def pick(options):
    return options[below(len(options))]


def money(x):
    return decimal.Decimal(str(x)).quantize(decimal.Decimal("0.0001"))


def read_lines(path):
    """Every line of the real data, in its order."""
    t = pq.read_table(path).to_pydict()
    counts = defaultdict(int)
    for i in range(len(t["invoice_no"])):
        no = t["invoice_no"][i]
        counts[no] += 1
        yield {
            "order_id": no,
            "line_no": counts[no],
            "product_id": t["stock_code"][i],
            "description": t["description"][i],
            "quantity": t["quantity"][i],
            "unit_price": money(t["unit_price"][i]),
            "at": t["invoice_ts"][i],
            "customer": t["customer_id"][i],
            "country": t["country"][i],
        }


def orders_of(lines):
    orders = {}
    for l in lines:
        o = orders.setdefault(l["order_id"], {
            "order_id": l["order_id"], "source": "web_shop", "record_id": None, "ordered_at": l["at"], "status": None,
            "amount": decimal.Decimal(0), "currency": "GBP", "quantity": 0, "country": l["country"],
        })
        if l["customer"] is not None:
            o["record_id"] = str(l["customer"])
        o["ordered_at"] = min(o["ordered_at"], l["at"])
        o["amount"] += l["unit_price"] * l["quantity"]
        o["quantity"] += l["quantity"]
        o["status"] = "cancelled" if l["order_id"].startswith("C") else "completed"
    return list(orders.values())


# ---------------------------------------------------------------- people

FULL_WIDTH = {ord(c): ord(c) + 0xFEE0 for c in "0123456789@."}
NO_PHONE = ["", "null", "N/A", "00000000000", "无", "-", "11111111"]
NO_EMAIL = ["", "none", "test@test.com", "unknown", "n/a", "null@mail.example"]


def dirty_phone(phone):
    """(what the record says, whether it still means the phone)"""
    if not chance(1 / 3):
        return phone, True
    kind = below(6)
    if kind == 0:
        return "+86 " + phone[:3] + "-" + phone[3:7] + "-" + phone[7:], True
    if kind == 1:
        return "0086" + phone, True
    if kind == 2:
        return phone.translate(FULL_WIDTH), True
    if kind == 3:
        return " " + phone[:3] + " " + phone[3:7] + " " + phone[7:] + " ", True
    if kind == 4:
        return phone[:-2], False  # two digits lost
    return pick(NO_PHONE), False


def dirty_email(email):
    if not chance(1 / 3):
        return email, True
    kind = below(5)
    if kind == 0:
        return email.upper(), True
    if kind == 1:
        return "  " + email + " ", True
    if kind == 2:
        return email.replace("@", "＠"), True
    if kind == 3:
        return email.replace("@", " at "), False
    return pick(NO_EMAIL), False


class People:
    """Records of three sources, their identifiers, and the truth about who they are."""

    def __init__(self, customers, first_order):
        self.records, self.identifiers = [], []
        self.good = []  # (record, identifier) pairs that a careful reader would link by
        self.truth = {}
        devices = 0
        for n, customer in enumerate(customers):
            seen = first_order[customer]
            phone = "154%08d" % (10_000_019 + n * 7_919 % 80_000_000)  # 154 is not assigned to anybody
            email = "buyer.%s@mail.example" % customer
            device = "dev-%06x" % (0x10_000 + n * 9_973 % 0xEF_0000)
            open_id = "oX%sq%d" % (customer, n * 31 % 997)
            devices += 1
            self.add("web_shop", str(customer), customer, seen, phone=phone, device=device)
            if chance(0.55):
                self.add("app", "A%05d" % n, customer, seen + dt.timedelta(days=below(40)), email=email, device=device)
                if chance(0.6):
                    self.add("wechat", "W%05d" % n, customer, seen + dt.timedelta(days=below(90)), email=email, open_id=open_id)
            elif chance(0.25):
                self.add("wechat", "W%05d" % n, customer, seen + dt.timedelta(days=below(90)), phone=phone, open_id=open_id)
        self.plant_classic()
        self.plant_kiosk()

    def add(self, source, record, person, at, phone=None, email=None, device=None, open_id=None, clean=False):
        row = {"source": source, "record_id": record, "registered_at": at, "phone": None, "email": None,
               "device_id": device, "open_id": open_id, "gender": pick(["f", "m", ""]), "channel": source}
        key = (source, record)
        self.truth[key] = person
        if phone is not None:
            row["phone"], ok = (phone, True) if clean else dirty_phone(phone)
            self.identify(key, "phone", row["phone"], at, phone if ok else None)
        if email is not None:
            row["email"], ok = (email, True) if clean else dirty_email(email)
            self.identify(key, "email", row["email"], at, email if ok else None)
        if device is not None:
            self.identify(key, "device", device, at, device)
        if open_id is not None:
            self.identify(key, "open_id", open_id, at, open_id)
        self.records.append(row)

    def identify(self, key, kind, value, at, meant):
        self.identifiers.append({"source": key[0], "record_id": key[1], "id_type": kind, "id_value": value, "seen_at": at})
        if meant is not None:
            self.good.append((key, (kind, meant)))

    def plant_classic(self):
        """phone + device, email + device, email + open id: three records, one person."""
        at = dt.datetime(2011, 6, 1, 9, 0)
        self.add("web_shop", "classic-1", "classic", at, phone="15412345678", device="dev-classic", clean=True)
        self.add("app", "classic-2", "classic", at, email="classic@mail.example", device="DEV-CLASSIC", clean=True)
        self.good[-1] = (("app", "classic-2"), ("device", "dev-classic"))
        self.add("wechat", "classic-3", "classic", at, email="Classic@Mail.Example", open_id="oXclassic", clean=True)
        self.good[-2] = (("wechat", "classic-3"), ("email", "classic@mail.example"))

    def plant_kiosk(self):
        """A device in the shop that forty strangers used: it must link nobody."""
        at = dt.datetime(2011, 7, 1, 9, 0)
        for i in range(40):
            self.add("app", "kiosk-%02d" % i, "kiosk-%d" % i, at, email="guest%02d@mail.example" % i, device="dev-kiosk", clean=True)
        self.good = [g for g in self.good if g[1] != ("device", "dev-kiosk")]

    def clusters(self):
        """Connected components over what a careful reader would link by."""
        parent = {k: k for k in self.truth}

        def root(k):
            while parent[k] != k:
                parent[k] = parent[parent[k]]
                k = parent[k]
            return k

        first = {}
        for key, identifier in self.good:
            other = first.setdefault(identifier, key)
            a, b = root(key), root(other)
            if a != b:
                parent[max(a, b)] = min(a, b)
        return {k: root(k) for k in parent}


# ---------------------------------------------------------------- behaviour

def events_of(orders, people):
    """What buyers did before they ordered, and what others did who did not order."""
    app_of = {}
    for r in people.records:
        if r["source"] == "app":
            app_of.setdefault(people.truth[(r["source"], r["record_id"])], r["record_id"])
    out = []

    def act(source, record, at, event, channel, properties=None):
        out.append({"event_id": None, "source": source, "record_id": record, "occurred_at": at, "event": event,
                    "channel": channel, "campaign_id": None, "properties": properties})

    for o in orders:
        if o["record_id"] is None or o["status"] != "completed" or o["amount"] <= 0:
            continue
        person, at = int(o["record_id"]), o["ordered_at"]
        channel = pick(["search", "email", "wechat", "direct"])
        # Half of the visits happen in the app, under the app's own record: only OneID joins them with the order.
        in_app = person in app_of and chance(0.5)
        who = ("app", app_of[person]) if in_app else ("web_shop", o["record_id"])
        act(*who, at - dt.timedelta(minutes=30 + below(1500)), "visit", channel)
        act(*who, at - dt.timedelta(minutes=12 + below(18)), "cart", channel)
        if chance(0.9):
            act("web_shop", o["record_id"], at - dt.timedelta(minutes=2 + below(10)), "checkout", channel)
        act("web_shop", o["record_id"], at, "pay", channel, json.dumps({"order_id": o["order_id"], "amount": str(o["amount"])}))
    customers = sorted({int(o["record_id"]) for o in orders if o["record_id"] is not None})
    for person in customers:
        for _ in range(below(6)):
            at = dt.datetime(2010, 12, 1) + dt.timedelta(minutes=below(373 * 1440))
            channel = pick(["search", "email", "wechat", "direct"])
            who = ("app", app_of[person]) if person in app_of else ("web_shop", str(person))
            act(*who, at, "visit", channel)
            if chance(0.4):
                act(*who, at + dt.timedelta(minutes=1 + below(50)), "cart", channel)
                if chance(0.3):
                    act(*who, at + dt.timedelta(minutes=60 + below(50)), "checkout", channel)
    out.sort(key=lambda e: (e["occurred_at"], e["source"], e["record_id"], e["event"]))
    for i, e in enumerate(out):
        e["event_id"] = "e%06d" % i
    return out


# Each is sent to a third of those who had a record by then.
CAMPAIGNS = [("spring", dt.datetime(2011, 3, 7, 9)), ("summer", dt.datetime(2011, 6, 13, 9)),
             ("autumn", dt.datetime(2011, 9, 12, 9)), ("christmas", dt.datetime(2011, 11, 7, 9))]
CAMPAIGN_WINDOW = dt.timedelta(days=30)


def campaign_events(orders, people):
    """Who received a campaign and looked at it, claimed its coupon, and redeemed that with the next order."""
    rng = random.Random(20110307)
    bought = defaultdict(list)
    for o in orders:
        if o["record_id"] is not None and o["status"] == "completed" and o["amount"] > 0:
            bought[int(o["record_id"])].append(o["ordered_at"])
    out = []
    for campaign, sent in CAMPAIGNS:
        for r in people.records:
            key = (r["source"], r["record_id"])
            if r["registered_at"] > sent or rng.random() >= 1 / 3:
                continue
            channel = {"web_shop": "email", "app": "push", "wechat": "wechat"}[r["source"]]

            def act(at, event):
                out.append({"event_id": None, "source": key[0], "record_id": key[1], "occurred_at": at, "event": event,
                            "channel": channel, "campaign_id": campaign, "properties": None})

            act(sent, "campaign_received")
            viewed = sent + dt.timedelta(minutes=1 + int(rng.random() * 2880))
            if rng.random() >= 0.4:
                continue
            act(viewed, "campaign_viewed")
            if rng.random() >= 0.5:
                continue
            claimed = viewed + dt.timedelta(minutes=1 + int(rng.random() * 30))
            act(claimed, "coupon_claimed")
            later = [at for at in bought[people.truth[key]] if claimed < at <= sent + CAMPAIGN_WINDOW]
            if later and rng.random() < 0.7:
                act(min(later), "coupon_redeemed")
    out.sort(key=lambda e: (e["occurred_at"], e["source"], e["record_id"], e["event"]))
    for i, e in enumerate(out):
        e["event_id"] = "c%06d" % i
    return out


# ---------------------------------------------------------------- answers, the slow and obvious way

STEPS = ["visit", "cart", "checkout", "pay"]
WINDOW = dt.timedelta(days=7)


def funnel(events, who):
    by = defaultdict(list)
    for e in events:
        key = who((e["source"], e["record_id"]))
        if e["event"] in STEPS:
            by[key].append((e["occurred_at"], STEPS.index(e["event"]) + 1))
    reached = [0] * len(STEPS)
    for touches in by.values():
        touches.sort()
        start = [None] * (len(STEPS) + 1)
        best = 0
        for at, step in touches:
            s = at if step == 1 else start[step - 1]
            if s is not None and at - s <= WINDOW:
                start[step] = s if start[step] is None else max(start[step], s)
                best = max(best, step)
        for i in range(best):
            reached[i] += 1
    return reached


def retention(orders):
    """Buyers of the first month, and how many of them bought in each later month; cancellations left out."""
    months = defaultdict(set)
    for o in orders:
        if o["record_id"] is not None and o["status"] == "completed" and o["amount"] > 0:
            months[o["record_id"]].add(o["ordered_at"].year * 12 + o["ordered_at"].month)
    first = [m for m in months.values() if min(m) == 2010 * 12 + 12]
    return [sum(2010 * 12 + 12 + n in m for m in first) for n in range(13)]


def campaigns(events, orders, who):
    """For each campaign how many customers received, viewed, claimed, redeemed and ordered, within 30 days of the first touch."""
    ordered = defaultdict(list)
    for o in orders:
        if o["record_id"] is not None and o["status"] == "completed":
            ordered[who((o["source"], o["record_id"]))].append(o["ordered_at"])
    found = {}
    for campaign, _ in CAMPAIGNS:
        acts = [(who((e["source"], e["record_id"])), e["occurred_at"], e["event"]) for e in events if e["campaign_id"] == campaign]
        first = {}
        for customer, at, event in acts:
            if event == "campaign_received":
                first[customer] = min(first.get(customer, at), at)
        within = lambda customer, at: customer in first and first[customer] <= at <= first[customer] + CAMPAIGN_WINDOW
        did = lambda event: len({c for c, at, e in acts if e == event and within(c, at)})
        buyers = sum(any(within(customer, at) for at in ordered[customer]) for customer in first)
        found[campaign] = [len(first), did("campaign_viewed"), did("coupon_claimed"), did("coupon_redeemed"), buyers]
    return found


def write_csv(name, rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: v.isoformat(sep=" ") if isinstance(v, dt.datetime) else v for k, v in row.items()})
    with open(name, "wb") as f:
        with gzip.GzipFile(fileobj=f, mode="wb", mtime=0, compresslevel=9) as z:
            z.write(text.getvalue().encode())


def write_parquet(name, schema, rows):
    table = pa.table({f.name: pa.array([r[f.name] for r in rows], f.type) for f in schema}, schema=schema)
    pq.write_table(table, name, compression="zstd", compression_level=19, row_group_size=1 << 17)


def main(path):
    lines = list(read_lines(path))
    orders = orders_of(lines)
    first = {}
    for o in orders:
        if o["record_id"] is not None:
            c = int(o["record_id"])
            first[c] = min(first.get(c, o["ordered_at"]), o["ordered_at"])
    people = People(sorted(first), first)
    events = events_of(orders, people) + campaign_events(orders, people)
    events.sort(key=lambda e: e["occurred_at"])
    clusters = people.clusters()
    answers = {
        "order_lines": len(lines),
        "orders": len(orders),
        "lines_total": str(sum(l["unit_price"] * l["quantity"] for l in lines)),
        "records": len(people.records),
        "identifiers": len(people.identifiers),
        "contact_values": sum(i["id_type"] in ("phone", "email") for i in people.identifiers),
        "customers_by_oneid": len(set(clusters.values())),
        "events": len(events),
        "funnel_by_oneid": funnel(events, lambda k: clusters[k]),
        "funnel_by_record": funnel(events, lambda k: k),
        "retention_first_month": retention(orders),
        "campaigns": campaigns(events, orders, lambda k: clusters[k]),
    }
    for row in orders:
        row["ordered_at"] = row["ordered_at"].replace(tzinfo=UTC)
    utc = pa.timestamp("us", tz="UTC")
    amount = pa.decimal128(18, 4)
    write_parquet("order_lines.parquet", pa.schema([
        ("order_id", pa.string()), ("line_no", pa.int64()), ("product_id", pa.string()), ("description", pa.string()),
        ("quantity", pa.int64()), ("unit_price", amount)]), lines)
    write_parquet("orders.parquet", pa.schema([
        ("order_id", pa.string()), ("source", pa.string()), ("record_id", pa.string()), ("ordered_at", utc),
        ("status", pa.string()), ("amount", amount), ("currency", pa.string()), ("quantity", pa.int64()),
        ("country", pa.string())]), orders)
    for e in events:
        e["occurred_at"] = e["occurred_at"].replace(tzinfo=UTC)
    write_parquet("events.parquet", pa.schema([
        ("event_id", pa.string()), ("source", pa.string()), ("record_id", pa.string()), ("occurred_at", utc),
        ("event", pa.string()), ("channel", pa.string()), ("campaign_id", pa.string()), ("properties", pa.string())]), events)
    write_csv("customers.csv.gz", people.records)
    write_csv("identifiers.csv.gz", people.identifiers)
    with open("answers.json", "w") as f:
        json.dump(answers, f, indent=1)
        f.write("\n")
    print(json.dumps(answers, indent=1))


if __name__ == "__main__":
    main(sys.argv[1])
