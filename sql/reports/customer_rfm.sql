-- grain         one row per one_id with a counting order in the 365 days to report_asof(), that day included
-- schedule      CRON '30 2 * * *' AT TIME ZONE 'Asia/Shanghai'
-- assert        'somebody bought' CHECK (SELECT count(*) > 0 FROM staged)
-- recency_days  BIGINT   whole days from the last counting order to report_asof(); smaller is better
-- frequency     BIGINT   counting orders
-- monetary      DECIMAL  net of refunds inside the window
-- r, f, m       INT      1..5 by quantile cuts, 5 is best; equal values get equal scores
-- segment       TEXT     one of eight, by value against the mean
SELECT one_id, recency_days, frequency, monetary, r, f, m, segment, as_of
FROM rfm(order_facts, customer => 'one_id', window_days => 365, as_of => report_asof())
