"""What each defence is for: without it, the attack that it is there for gets through."""
