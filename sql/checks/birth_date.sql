-- check birth_date
-- means days of birth before 1900 or to come
-- for   column birth_date
SELECT source, count(value) AS rows, count(*) FILTER (WHERE value < DATE '1900-01-01' OR value > current_date) AS failed
FROM (SELECT {source} AS source, TRY_CAST({column} AS DATE) AS value FROM {table}) AS v GROUP BY 1
