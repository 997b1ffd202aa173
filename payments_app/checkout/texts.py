"""What the page says once it is open; what it says from the start stands in its template."""

from payments_app.texts import N_

TEXTS = {
    "signing_in": N_("Signing in ..."),
}
