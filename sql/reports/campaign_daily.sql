-- grain      one row per campaign and channel: what became of those who received it
-- schedule   CRON '35 2 * * *' AT TIME ZONE 'Asia/Shanghai'
-- assert     'one currency' CHECK (SELECT count(DISTINCT currency) <= 1 FROM order_facts)
-- received, viewed, redeemed, buyers  BIGINT  customers, within 30 days of the first touch
-- revenue    DECIMAL net of refunds: orders below zero, whatever their status
-- new_customers, retained, won_back, lost  BIGINT  by what they had ordered before
SELECT campaign, channel, received, viewed, claimed, redeemed, buyers, orders, revenue, new_customers, retained, won_back, lost
FROM campaign_report((SELECT one_id, occurred_at, event, campaign_id, channel, CAST(NULL AS DECIMAL(38, 6)) AS amount FROM event_facts
                      WHERE occurred_at < report_asof() + 1
                      UNION ALL
                      SELECT one_id, ordered_at, CASE WHEN amount < 0 THEN 'refund' ELSE 'order' END, NULL, NULL, amount FROM order_facts
                      WHERE (status = 'completed' AND amount > 0 OR amount < 0) AND ordered_at < report_asof() + 1),
                     received => 'campaign_received', viewed => 'campaign_viewed', claimed => 'coupon_claimed', redeemed => 'coupon_redeemed',
                     ordered => 'order', refunded => 'refund')
