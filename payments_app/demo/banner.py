"""What ``make run`` prints: where the service is, who may log in, and a line that pays a consultation."""

import os
import sys

from payments_app.demo.cli import PASSWORD, USERS


def banner(port: str) -> str:
    """The text, with a curl line that works as it is pasted."""
    address = f"http://127.0.0.1:{port}"
    logins = "\n".join(f"  {email:<18}  {PASSWORD}  ({role})" for email, _name, role in USERS)
    return f"""
Consultation payments: {address}    API: {address}/docs    Ctrl-C stops it

Logins
{logins}

Pay consultation 5
  TOKEN=$(curl -s {address}/api/login -d email=patient@test.com -d password={PASSWORD} | grep -o 'ey[^"]*')
  curl -i {address}/api/v1/payments -H "Authorization: Bearer $TOKEN" -H 'Idempotency-Key: my-first-payment' \\
    -H 'Content-Type: application/json' -d '{{"consultation_id": 5, "amount": 5000, "payment_method": "stripe"}}'
"""


if __name__ == "__main__":
    sys.stdout.write(banner(os.environ.get("PORT", "8000")))
