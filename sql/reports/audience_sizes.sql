-- grain      one row per audience and day that the report spoke for
-- schedule   CRON '30 4 * * *' AT TIME ZONE 'Asia/Shanghai'
-- with       (mode = 'snapshot')
-- members    BIGINT  in the newest version
-- added, removed  BIGINT  with that version
SELECT report_asof() AS as_of, name, version, members, added, removed, data_asof
FROM reports.audiences
