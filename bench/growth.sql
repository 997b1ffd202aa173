-- Payments that nobody has confirmed yet, with their invoices, one every 30 seconds; what else belongs to a payment is only
-- ever added, so it is left out. As the superuser, without foreign keys being checked row by row: they hold by construction.
-- The parameter is how many.
SET synchronous_commit = off;
SET session_replication_role = replica;
INSERT INTO users (id, email, name, role, password_hash, token_version, created_at)
VALUES (1, 'patient@example.com', 'Patient', 'patient', '', 0, now());
INSERT INTO consultations (id, patient_id, currency, created_at, updated_at)
SELECT n, 1, 'PHP', now(), now() FROM generate_series(1, {payments}) n;
INSERT INTO payments
       (id, user_id, consultation_id, amount_minor, currency, payment_method, gateway, status, received_minor,
        refund_reserved_minor, refunded_minor, needs_review, version, created_at, updated_at)
SELECT n, 1, n, 500000, 'PHP', 'stripe', 'sandbox', 'pending', 0, 0, 0, false, 0, at, at
  FROM generate_series(1, {payments}) n, LATERAL (SELECT now() - ({payments} + 1 - n) * interval '30 seconds') AS t (at);
INSERT INTO invoices (id, payment_id, invoice_number, amount_minor, currency, status, issued_at)
SELECT n, n, 'INV-20260131093000-' || n, 500000, 'PHP', 'pending', now() FROM generate_series(1, {payments}) n;
-- Confirms some of them, one transaction each, by the two UPDATEs that the service sends (without receipt_url, which few
-- name): the same columns, found by the same conditions. Here, so that a million take minutes and not an hour. In no
-- order, by steps of a prime: payments that lie on one page are paid minutes apart, and so not all at the same moment.
CREATE PROCEDURE confirm(first bigint, last bigint, payments bigint) LANGUAGE plpgsql AS $$
DECLARE
    chosen bigint;
BEGIN
    FOR n IN first..last LOOP
        chosen := n::bigint * 7368787 % payments + 1;
        UPDATE payments
           SET status = 'completed', transaction_id = 'TXN-' || chosen, received_minor = 500000, version = 1,
               updated_at = clock_timestamp(), completed_at = clock_timestamp()
         WHERE id = chosen AND version = 0;
        UPDATE invoices SET status = 'paid', paid_at = clock_timestamp() WHERE id = chosen;
        COMMIT;
    END LOOP;
END $$
