-- check orphan
-- means orders of a record that is not among the customers
-- for   table orders
-- needs orders.source, orders.record_id, customers.source, customers.record_id
SELECT o.source, 'record_id' AS column_name, count(*) AS rows, count(*) FILTER (WHERE c.record_id IS NULL) AS failed,
  min(o.record_id) FILTER (WHERE c.record_id IS NULL) AS sample, max(o.record_id) FILTER (WHERE c.record_id IS NULL) AS other_sample
FROM orders AS o
LEFT JOIN (SELECT DISTINCT source, record_id FROM customers) AS c ON c.source = o.source AND c.record_id = o.record_id
WHERE o.record_id IS NOT NULL GROUP BY 1
