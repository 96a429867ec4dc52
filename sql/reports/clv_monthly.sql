-- grain      one row per one_id who ever bought: what they are expected to buy and to be worth in the year after report_asof()
-- schedule   CRON '0 4 1 * *' AT TIME ZONE 'Asia/Shanghai'
-- p_alive    DOUBLE  probability to be alive, by MBG/NBD fitted to everybody
-- purchases  DOUBLE  expected days with a purchase within 52 weeks
-- converged  BOOLEAN whether both fits came to a bottom; where not, the figures below are not to be relied on
-- clv        DECIMAL expected payments within 52 weeks, each week's discounted by 0.2 % a week
WITH summary AS (
  SELECT * FROM btyd_summary(order_facts, customer => 'one_id', cal_end => report_asof())
), fits AS (
  SELECT mbgnbd_fit(x, t_x, t) AS fit, gg_fit(x, m_x) AS gg FROM summary
)
SELECT s.one_id, s.x, s.t_x, s.t, s.m_x, fit.converged AND gg.converged AS converged, p_alive(fit, s.x, s.t_x, s.t) AS p_alive, mbgnbd_expected(fit, s.x, s.t_x, s.t, 52) AS purchases,
       CAST(clv(fit, gg, s.x, s.t_x, s.t, coalesce(s.m_x, 0), 52, 0.002) AS DECIMAL(18, 2)) AS clv
FROM summary AS s CROSS JOIN fits
