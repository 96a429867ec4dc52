-- grain     one row per event
-- one_id    BIGINT  the customer that the event's record belongs to; NULL when nobody is known
CREATE OR REPLACE VIEW event_facts AS
SELECT m.one_id, e.*
FROM events AS e
LEFT JOIN customer.map AS m ON m.source = e.source AND m.record_id = e.record_id
