"""The locking strategies, behind one context manager. They differ only in cost: each keeps every promise."""
