"""M1's index, M3's CHECKs and the keys' primary key, and statements that an operator might break them with."""

INDEX = "uq_payments_active_consultation"
DROP_INDEX = f"DROP INDEX {INDEX}"
# As the migrations write it.
STATUSES = "'pending', 'processing', 'completed', 'partially_refunded'"
PREDICATE = f"status IN ({STATUSES}) AND deleted_at IS NULL"
CREATE_INDEX = f"CREATE UNIQUE INDEX {INDEX} ON payments (consultation_id) WHERE {PREDICATE}"

# Wrong definitions in its place, by what is wrong with them.
SPOILT_INDEXES = {
    "dropped": None,
    "not-unique": CREATE_INDEX.replace("UNIQUE ", ""),
    "of-more-columns": CREATE_INDEX.replace("(consultation_id)", "(consultation_id, user_id)"),
    "of-an-expression": CREATE_INDEX.replace("(consultation_id)", "((consultation_id + 0))"),
    "of-fewer-statuses": CREATE_INDEX.replace(", 'partially_refunded'", ""),
    "of-more-statuses": CREATE_INDEX.replace("'pending'", "'pending', 'failed'"),
    "of-some-gateways": f"{CREATE_INDEX} AND gateway <> 'manual'",
    "of-deleted-ones-too": CREATE_INDEX.replace(" AND deleted_at IS NULL", ""),
    "of-all-payments": CREATE_INDEX.partition(" WHERE ")[0],
    "of-either": CREATE_INDEX.replace(" AND ", " OR "),
}

DROP_KEYS = "ALTER TABLE idempotency_keys DROP CONSTRAINT pk_idempotency_keys"

CHECK = "ck_payments_refunds_within_received"
INVARIANT = "refund_reserved_minor + refunded_minor <= received_minor"
DROP_CHECK = f"ALTER TABLE payments DROP CONSTRAINT {CHECK}"
ADD_CHECK = f"ALTER TABLE payments ADD CONSTRAINT {CHECK} CHECK ({INVARIANT})"
SPOILT_CHECKS = {
    "dropped": None,
    "wider": ADD_CHECK.replace(INVARIANT, f"{INVARIANT} + 1"),
    "of-either": ADD_CHECK.replace(INVARIANT, f"{INVARIANT} OR needs_review"),
    "of-letters": ADD_CHECK.replace(INVARIANT, f"({INVARIANT})".replace(" <= ", ")::text <= (") + "::text"),
    "not-valid": f"{ADD_CHECK} NOT VALID",
    "not-enforced": f"{ADD_CHECK} NOT ENFORCED",
}
