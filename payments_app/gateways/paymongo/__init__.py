"""PayMongo: the client of its API, its objects as plain values of ours, and the events that it sends."""
