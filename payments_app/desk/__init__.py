"""The front desk: what staff search, see and do on the page at ``/desk``."""
