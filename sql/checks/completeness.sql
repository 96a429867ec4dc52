-- check completeness
-- means values that are missing: nothing, or nothing but blanks
-- for   every text column but for phone, mobile, email, id_card, imei, device_id, open_id, union_id
SELECT {source} AS source, count(*) AS rows, count(*) FILTER (WHERE {column} IS NULL OR btrim({column}) = '') AS failed
FROM {table} GROUP BY 1
