-- grain      one row per day that the report spoke for: customers who have not bought for 90 to 180 days, and all others
-- schedule   CRON '0 3 * * 1' AT TIME ZONE 'Asia/Shanghai'
-- with       (mode = 'snapshot', catchup = 'all')
-- customers  BIGINT  who ever bought
-- dormant    BIGINT  whose last order is 90 to 179 days ago
-- lost       BIGINT  180 days or more
-- important, important_dormant  BIGINT  of the four important segments; of those who are dormant
SELECT report_asof() AS as_of, count(*) AS customers,
       count(*) FILTER (WHERE recency_days >= 90 AND recency_days < 180) AS dormant,
       count(*) FILTER (WHERE recency_days >= 180) AS lost,
       count(*) FILTER (WHERE segment LIKE 'important%') AS important,
       count(*) FILTER (WHERE segment LIKE 'important%' AND recency_days >= 90 AND recency_days < 180) AS important_dormant
FROM rfm(order_facts, customer => 'one_id', population => 'history', as_of => report_asof())
