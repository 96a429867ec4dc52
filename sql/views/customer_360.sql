-- grain           one row per one_id
-- records         BIGINT   records of all sources that are this customer
-- sources         TEXT     the sources, in order of name
-- first_order_at  TIMESTAMPTZ  first completed order
-- orders          BIGINT   completed orders
-- paid            DECIMAL  completed orders net of cancellations
CREATE OR REPLACE VIEW customer_360 AS
SELECT m.one_id, m.records, m.sources, o.first_order_at, o.last_order_at, coalesce(o.orders, 0) AS orders, o.paid
FROM (
  SELECT one_id, count(*) AS records, string_agg(DISTINCT source, ',' ORDER BY source) AS sources
  FROM customer.map
  GROUP BY one_id
) AS m
LEFT JOIN (
  SELECT one_id,
         min(ordered_at) FILTER (WHERE status = 'completed') AS first_order_at,
         max(ordered_at) FILTER (WHERE status = 'completed') AS last_order_at,
         count(*) FILTER (WHERE status = 'completed') AS orders,
         sum(amount) AS paid
  FROM order_facts
  GROUP BY one_id
) AS o ON o.one_id = m.one_id
