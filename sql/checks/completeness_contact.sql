-- check completeness
-- means values that are missing: nothing, blanks, or what sources write for nothing, such as null, N/A and -
-- for   column phone, mobile, email, id_card, imei, device_id, open_id, union_id
SELECT {source} AS source, count(*) AS rows,
  count(*) FILTER (WHERE {column} IS NULL OR btrim({column}::text) = '' OR id_reject_reason({name}, {column}::text) = 'null') AS failed
FROM {table} GROUP BY 1
