"""The users of `payments prove`, whose payments other systems are not shown: it removes them again."""

# A reserved domain (RFC 2606): nobody has such an address.
SCRATCH_DOMAIN = "proof.invalid"

# For LIKE.
SCRATCH_EMAILS = f"prove-%@{SCRATCH_DOMAIN}"
