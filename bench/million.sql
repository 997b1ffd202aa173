-- A million payments that were completed over the last year, one every 30 seconds, each with its five rows and a key that
-- was pruned for its age. As the superuser, without foreign keys being checked row by row: they hold by construction.
-- The parameter is the patient.
SET synchronous_commit = off;
SET session_replication_role = replica;
INSERT INTO consultations (id, patient_id, currency, created_at, updated_at)
SELECT n, {patient_id}, 'PHP', now(), now() FROM generate_series(1, 1000000) n;
INSERT INTO payments
       (id, user_id, consultation_id, amount_minor, currency, payment_method, gateway, status, transaction_id,
        received_minor, refund_reserved_minor, refunded_minor, needs_review, version, created_at, updated_at, completed_at)
SELECT n, {patient_id}, n, 500000, 'PHP', 'stripe', 'sandbox', 'completed', 'TXN-' || n,
       500000, 0, 0, false, 1, at, at, at
  FROM generate_series(1, 1000000) n, LATERAL (SELECT now() - (1000001 - n) * interval '30 seconds') AS t (at);
INSERT INTO tax_records (payment_id, tax_type, tax_rate_basis_points, taxable_amount_minor, amount_minor, status)
SELECT n, 'VAT', 1200, 500000, 60000, 'calculated' FROM generate_series(1, 1000000) n;
INSERT INTO invoices (id, payment_id, invoice_number, amount_minor, currency, status, issued_at, paid_at)
SELECT n, n, 'INV-20260131093000-' || n, 500000, 'PHP', 'paid', now(), now() FROM generate_series(1, 1000000) n;
INSERT INTO payment_events (payment_id, event, to_status, version, actor, created_at)
SELECT n, 'payment.created', 'pending', 0, 'patient:1', now() FROM generate_series(1, 1000000) n;
-- Keys are random, as clients make them; in their order, because an index is filled more quickly so.
INSERT INTO idempotency_keys (user_id, key, operation, request_hash, payment_id, response_status, created_at)
SELECT {patient_id}, key, 'create', repeat('0', 64), n, 201, now()
  FROM (SELECT n, gen_random_uuid()::text AS key FROM generate_series(1, 1000000) n) AS random_keys
 ORDER BY key;
UPDATE id_blocks SET next_id = 1000001;
RESET session_replication_role;
RESET synchronous_commit;
