-- check orphan
-- means lines of an order that is not among the orders
-- for   table order_lines
-- needs order_lines.order_id, orders.order_id
SELECT l.source, 'order_id' AS column_name, count(*) AS rows, count(*) FILTER (WHERE o.order_id IS NULL) AS failed,
  min(l.order_id) FILTER (WHERE o.order_id IS NULL) AS sample, max(l.order_id) FILTER (WHERE o.order_id IS NULL) AS other_sample
FROM (SELECT {source} AS source, order_id FROM order_lines) AS l
LEFT JOIN (SELECT DISTINCT order_id FROM orders) AS o ON o.order_id = l.order_id
WHERE l.order_id IS NOT NULL GROUP BY 1
