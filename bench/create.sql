-- The limit: what a create cannot do without, sent by pgbench with nothing around it. Eight statements: BEGIN, the read
-- that says whose consultation it is, the five rows, COMMIT. Run prepared, by as many clients as the services are
-- asked by. pgbench keeps :n for each client; :first and :clients are given on its command line.
\set n :n + 1
\set consultation_id :first + :n * :clients + :client_id
\set token random(1, 9000000000000000000)
BEGIN;
SELECT u.id AS user_id
  FROM consultations c JOIN users u ON u.id = c.patient_id
 WHERE c.id = :consultation_id AND u.id = :user_id AND u.role = 'patient' AND u.token_version = 0
   AND u.disabled_at IS NULL AND (c.fee_minor IS NULL OR c.fee_minor = 500000) \gset
INSERT INTO payments
       (user_id, consultation_id, amount_minor, currency, payment_method, gateway, status, received_minor,
        refund_reserved_minor, refunded_minor, needs_review, version, created_at, updated_at)
VALUES (:user_id, :consultation_id, 500000, 'PHP', 'stripe', 'sandbox', 'pending', 0, 0, 0, false, 0, now(), now())
RETURNING id AS payment_id \gset
INSERT INTO tax_records (payment_id, tax_type, tax_rate_basis_points, taxable_amount_minor, amount_minor, status)
VALUES (:payment_id, 'VAT', 1200, 500000, 60000, 'calculated');
INSERT INTO invoices (payment_id, invoice_number, amount_minor, currency, status, issued_at)
VALUES (:payment_id, 'INV-20260131093000-' || :payment_id, 500000, 'PHP', 'pending', now());
INSERT INTO payment_events (payment_id, event, to_status, version, actor, request_id, created_at)
VALUES (:payment_id, 'payment.created', 'pending', 0, 'patient:1', '5f0c4b1e9d7a4c6f8b2e3d1a0c9f8e7d', now());
INSERT INTO idempotency_keys
       (user_id, key, operation, request, request_hash, payment_id, response_status, response_body, created_at)
VALUES (:user_id, 'pgbench-' || :token, 'create',
        '{"amount":"5000.00","consultation_id":1000001,"payment_method":"stripe"}',
        'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855', :payment_id, 201,
        '{"data": {"type": "new", "payment_id": 1, "payment": {"id": 1, "user_id": 1, "consultation_id": 1000001, "amount": 5000, "currency": "PHP", "payment_method": "stripe", "gateway": "sandbox", "status": "pending", "transaction_id": null, "receipt_url": null, "refunded_amount": 0, "needs_review": false, "version": 0, "created_at": "2026-01-31T09:30:00.000000Z", "updated_at": "2026-01-31T09:30:00.000000Z", "completed_at": null}, "invoice": {"id": 1, "payment_id": 1, "invoice_number": "INV-20260131093000-1", "amount": 5000, "currency": "PHP", "status": "pending", "issued_at": "2026-01-31T09:30:00.000000Z", "paid_at": null}}, "message": "Payment created successfully"}',
        now());
COMMIT;
