"""Peers: other implementations of the create. Each file is a whole service on this project's tables."""
