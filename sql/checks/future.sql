-- check future
-- means times more than a day ahead of the clock
-- for   every time column
SELECT {source} AS source, count({column}) AS rows, count(*) FILTER (WHERE {column} > now() + INTERVAL '1 day') AS failed,
  (max({column}) FILTER (WHERE {column} > now() + INTERVAL '1 day'))::text AS sample
FROM {table} GROUP BY 1
