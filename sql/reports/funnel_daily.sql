-- grain     one row per step of the way to an order, of those who began in the 30 days to report_asof()
-- schedule  CRON '40 2 * * *' AT TIME ZONE 'Asia/Shanghai'
-- users     BIGINT  who came so far within seven days
-- dropped   BIGINT  who came here and no further
SELECT step, name, users, rate_total, dropped, seconds_median
FROM funnel_report(event_facts, customer => 'one_id', steps => ARRAY['visit', 'cart', 'checkout', 'pay'], window => INTERVAL '7 days',
                   "from" => report_asof() - 29, "to" => report_asof())
