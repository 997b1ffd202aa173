-- Payments that a measurement finds, each with the rows that it has got until then. As the superuser, without foreign keys
-- being checked row by row: they hold by construction. The parameters are those of Store.fill.
SET synchronous_commit = off;
SET session_replication_role = replica;
INSERT INTO payments
       (id, user_id, consultation_id, amount_minor, currency, payment_method, gateway, status, transaction_id,
        received_minor, refund_reserved_minor, refunded_minor, needs_review, version, created_at, updated_at, completed_at)
SELECT {first} + n, {patient_id}, {first_consultation} + n, 500000, 'PHP', '{method}', '{gateway}', '{status}',
       CASE WHEN is_paid THEN 'pi_bench' || {first} + n END, CASE WHEN is_paid THEN 500000 ELSE 0 END,
       0, 0, false, is_paid::int, now(), now(), CASE WHEN is_paid THEN now() END
  FROM generate_series(0, {count} - 1) n, (SELECT '{status}' = 'completed' AS is_paid) AS status;
INSERT INTO tax_records (payment_id, tax_type, tax_rate_basis_points, taxable_amount_minor, amount_minor, status)
SELECT id, 'VAT', 1200, 500000, 60000, 'calculated' FROM payments WHERE id >= {first};
INSERT INTO invoices (id, payment_id, invoice_number, amount_minor, currency, status, issued_at, paid_at)
SELECT id, id, 'INV-20260131093000-' || id, 500000, 'PHP', CASE WHEN completed_at IS NULL THEN 'pending' ELSE 'paid' END,
       now(), completed_at FROM payments WHERE id >= {first};
INSERT INTO payment_events (payment_id, event, to_status, version, actor, created_at)
SELECT id, 'payment.created', 'pending', 0, 'patient:1', now() FROM payments WHERE id >= {first};
INSERT INTO gateway_sessions (payment_id, gateway, reference, status, number, amount_minor, currency, created_at, updated_at)
SELECT id, 'stripe', 'pi_bench' || id, 'open', 1, 500000, 'PHP', now(), now()
  FROM payments WHERE id >= {first} AND gateway = 'stripe' AND completed_at IS NULL;
RESET session_replication_role;
RESET synchronous_commit;
ANALYZE payments, tax_records, invoices, payment_events, gateway_sessions;
