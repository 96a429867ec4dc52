-- grain        one row per order or event of a known customer
-- happened_at  TIMESTAMPTZ
-- kind         TEXT   'order' or 'event'
-- what         TEXT   the order's status or the event's name
CREATE OR REPLACE VIEW customer_timeline AS
SELECT one_id, ordered_at AS happened_at, 'order' AS kind, status AS what, order_id AS id, amount
FROM order_facts
WHERE one_id IS NOT NULL
UNION ALL
SELECT one_id, occurred_at, 'event', event, event_id, CAST(NULL AS DECIMAL(18, 4))
FROM event_facts
WHERE one_id IS NOT NULL
