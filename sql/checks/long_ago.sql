-- check long_ago
-- means times before 1990, which are zeros and defaults of a source more often than times
-- for   every time column but for birth_date
SELECT {source} AS source, count({column}) AS rows, count(*) FILTER (WHERE {column} < TIMESTAMP '1990-01-01 00:00:00') AS failed,
  (min({column}) FILTER (WHERE {column} < TIMESTAMP '1990-01-01 00:00:00'))::text AS sample
FROM {table} GROUP BY 1
