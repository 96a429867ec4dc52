-- check completeness
-- means values that are missing
-- for   every other column but for phone, mobile, email, id_card, imei, device_id, open_id, union_id
SELECT {source} AS source, count(*) AS rows, count(*) - count({column}) AS failed
FROM {table} GROUP BY 1
