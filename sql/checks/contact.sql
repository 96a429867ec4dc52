-- check validity
-- means values that nobody has: placeholders, lost digits, wrong check digits, addresses without a domain
-- for   column phone, mobile, email, id_card, imei
SELECT source, count(*) AS rows, count(*) FILTER (WHERE reason <> '') AS failed,
  min(value) FILTER (WHERE reason <> '') AS sample, max(value) FILTER (WHERE reason <> '') AS other_sample
FROM (
  SELECT {source} AS source, {column}::text AS value, coalesce(id_reject_reason({name}, {column}::text), '') AS reason
  FROM {table} WHERE {column} IS NOT NULL
) AS v
WHERE reason <> 'null' GROUP BY 1
