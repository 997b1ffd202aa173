"""The demo's users. Their password is published: in production, ``check`` reports a user who has it."""

from payments_app.accounts.models import Role

PASSWORD = "password"  # noqa: S105  # nosec B105  # published on purpose; refused in production
PATIENT = "patient@test.com"
USERS = (
    (PATIENT, "Demo Patient", Role.PATIENT),
    ("other@test.com", "Other Patient", Role.PATIENT),
    ("admin@test.com", "Demo Admin", Role.ADMIN),
)
