-- check duplicate
-- means rows of events whose (source, event_id) another row has too
-- for   table events
-- needs events.event_id
SELECT source, 'event_id' AS column_name, sum(n) AS rows, coalesce(sum(n - 1) FILTER (WHERE n > 1), 0) AS failed,
  min(event_id) FILTER (WHERE n > 1) AS sample, max(event_id) FILTER (WHERE n > 1) AS other_sample
FROM (SELECT {source} AS source, event_id, count(*) AS n FROM events WHERE event_id IS NOT NULL GROUP BY 1, 2) AS k GROUP BY 1
