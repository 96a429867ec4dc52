-- grain     one row per day and platform; a run computes the days that are new, and three days before them again
-- schedule  CRON '20 2 * * *' AT TIME ZONE 'Asia/Shanghai'
-- with      (mode = 'incremental', time = 'day', lookback = '3 days')
-- day       DATE    of Asia/Shanghai
-- source    TEXT    the platform that orders came by
-- orders    BIGINT  completed orders
-- revenue   DECIMAL of all orders, cancellations off
SELECT local_date(ordered_at, 'Asia/Shanghai') AS day, source, count(*) FILTER (WHERE status = 'completed') AS orders,
       count(DISTINCT one_id) AS customers, sum(amount) AS revenue
FROM order_facts
WHERE ordered_at >= report_from() AND ordered_at < report_to() + 1
GROUP BY 1, 2
