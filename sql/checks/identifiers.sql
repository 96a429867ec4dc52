-- check validity
-- means identifiers that are none of their type
-- for   table identifiers
-- needs identifiers.id_type, identifiers.id_value
SELECT source, id_type AS column_name, count(*) AS rows, count(*) FILTER (WHERE reason <> '') AS failed,
  min(value) FILTER (WHERE reason <> '') AS sample, max(value) FILTER (WHERE reason <> '') AS other_sample
FROM (
  SELECT {source} AS source, id_type, id_value AS value, coalesce(id_reject_reason(id_type, id_value), '') AS reason FROM {table}
) AS v
WHERE reason <> 'null' GROUP BY 1, 2
