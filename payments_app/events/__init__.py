"""The feed: every committed event of every payment, in an order that never changes, for other systems to read."""
