-- check duplicate
-- means rows of customers whose (source, record_id) another row has too
-- for   table customers
-- needs customers.source, customers.record_id
SELECT source, 'record_id' AS column_name, sum(n) AS rows, coalesce(sum(n - 1) FILTER (WHERE n > 1), 0) AS failed,
  min(record_id) FILTER (WHERE n > 1) AS sample, max(record_id) FILTER (WHERE n > 1) AS other_sample
FROM (SELECT source, record_id, count(*) AS n FROM customers WHERE record_id IS NOT NULL GROUP BY 1, 2) AS k GROUP BY 1
