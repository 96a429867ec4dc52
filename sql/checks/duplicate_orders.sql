-- check duplicate
-- means rows of orders whose (source, order_id) another row has too
-- for   table orders
-- needs orders.order_id
SELECT source, 'order_id' AS column_name, sum(n) AS rows, coalesce(sum(n - 1) FILTER (WHERE n > 1), 0) AS failed,
  min(order_id) FILTER (WHERE n > 1) AS sample, max(order_id) FILTER (WHERE n > 1) AS other_sample
FROM (SELECT {source} AS source, order_id, count(*) AS n FROM orders WHERE order_id IS NOT NULL GROUP BY 1, 2) AS k GROUP BY 1
