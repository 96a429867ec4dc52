-- grain     one row per order; orders without a known buyer have one_id NULL
-- one_id    BIGINT  the customer that the order's record belongs to
CREATE OR REPLACE VIEW order_facts AS
SELECT m.one_id, o.*
FROM orders AS o
LEFT JOIN customer.map AS m ON m.source = o.source AND m.record_id = o.record_id
