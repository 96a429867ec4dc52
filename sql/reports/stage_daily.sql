-- grain      one row per stage and day that the report spoke for
-- schedule   CRON '50 2 * * *' AT TIME ZONE 'Asia/Shanghai'
-- with       (mode = 'snapshot')
-- stage      TEXT    first_purchase, repeat, multiple_repeat, dormant, lost
-- customers  BIGINT
-- paid       DECIMAL what they paid in their lives, net of refunds
SELECT report_asof() AS as_of, stage, count(*) AS customers, sum(monetary) AS paid
FROM customer_stage(order_facts, customer => 'one_id', as_of => report_asof())
GROUP BY stage
