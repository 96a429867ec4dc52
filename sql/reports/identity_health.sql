-- grain      one row per source and day that the report spoke for: how well its records are known
-- schedule   CRON '15 2 * * *' AT TIME ZONE 'Asia/Shanghai'
-- with       (mode = 'snapshot')
-- records    BIGINT  records of the source
-- customers  BIGINT  the customers that they are
-- joined     BIGINT  records that share a customer with another record
-- rejected   BIGINT  identifiers of the source that join nobody, whatever the reason
-- in_review  BIGINT  questions of the whole graph that wait for a person
SELECT report_asof() AS as_of, m.source, m.records, m.customers, m.joined, coalesce(r.rejected, 0) AS rejected,
       (SELECT count(*) FROM customer.review) AS in_review
FROM (
  SELECT k.source, count(*) AS records, count(DISTINCT k.one_id) AS customers, count(*) FILTER (WHERE s.size > 1) AS joined
  FROM customer.map AS k JOIN (SELECT one_id, count(*) AS size FROM customer.map GROUP BY one_id) AS s ON s.one_id = k.one_id
  GROUP BY k.source
) AS m
LEFT JOIN (SELECT source, count(*) AS rejected FROM customer.rejected GROUP BY source) AS r ON r.source = m.source
