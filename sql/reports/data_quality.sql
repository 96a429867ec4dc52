-- grain         one row per check, table, column and source: what the last CHECK QUALITY found; a job that makes one every night:
--               SELECT cron.schedule('quality', '0 1 * * *', 'CHECK QUALITY')
-- schedule      CRON '5 2 * * *' AT TIME ZONE 'Asia/Shanghai'
-- failed, rows  BIGINT  values that failed, of those looked at
-- share         DOUBLE
SELECT check_name, table_name, column_name, source, rows, failed, share, checked_at
FROM (
  SELECT *, rank() OVER (PARTITION BY check_name, table_name ORDER BY checked_at DESC) AS newest
  FROM system.quality
) AS checks
WHERE newest = 1
