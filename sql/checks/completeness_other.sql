-- check completeness
-- means values that are missing
-- for   every other column
SELECT {source} AS source, count(*) AS rows, count(*) - count({column}) AS failed
FROM {table} GROUP BY 1
