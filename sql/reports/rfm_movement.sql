-- grain      one row per pair of segments that somebody was in 30 days before report_asof() and on it, those who stayed included
-- schedule   CRON '45 2 * * *' AT TIME ZONE 'Asia/Shanghai'
-- previous   TEXT    segment 30 days before; NULL for who came
-- segment    TEXT    segment now; NULL for who went
-- customers  BIGINT
WITH then AS (
  SELECT one_id, segment FROM rfm(order_facts, customer => 'one_id', window_days => 365, as_of => report_asof() - 30)
), now AS (
  SELECT one_id, segment FROM rfm(order_facts, customer => 'one_id', window_days => 365, as_of => report_asof())
)
SELECT then.segment AS previous, now.segment, count(*) AS customers
FROM then FULL JOIN now ON now.one_id = then.one_id
GROUP BY then.segment, now.segment
