-- grain      one row per day, platform and currency; a run computes the days that are new, and three days before them again
-- schedule   CRON '20 2 * * *' AT TIME ZONE 'Asia/Shanghai'
-- with       (mode = 'incremental', time = 'day', lookback = '3 days')
-- day        DATE    of Asia/Shanghai
-- source     TEXT    the platform that orders came by
-- currency   TEXT    of the amounts; those of two are never added up
-- orders     BIGINT  completed orders
-- customers  BIGINT  who placed them, by one_id
-- revenue    DECIMAL of completed orders, net of refunds: orders below zero, whatever their status
SELECT local_date(ordered_at, 'Asia/Shanghai') AS day, source, currency, count(*) FILTER (WHERE status = 'completed' AND amount >= 0) AS orders,
       count(DISTINCT one_id) FILTER (WHERE status = 'completed' AND amount >= 0) AS customers,
       coalesce(sum(amount) FILTER (WHERE status = 'completed' OR amount < 0), 0) AS revenue
FROM order_facts
WHERE ordered_at >= report_from() AND ordered_at < report_to() + 1
GROUP BY 1, 2, 3
