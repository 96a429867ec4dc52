-- grain        one row per month of a first order and month after it, up to report_asof() and the twelfth
-- schedule     CRON '10 3 * * 1' AT TIME ZONE 'Asia/Shanghai'
-- cohort       DATE    first day of the month of the first order
-- period       BIGINT  months after it; 0 is that month
-- cohort_size  BIGINT  first buyers of the month
-- retained     BIGINT  of them, who bought in that month
SELECT cohort, period, cohort_size, retained, rate
FROM retention_matrix((SELECT * FROM order_facts WHERE status = 'completed' AND amount > 0),
                      customer => 'one_id', time => 'ordered_at', interval => 'month', kind => 'first_time', as_of => report_asof())
