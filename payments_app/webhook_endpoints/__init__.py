"""Webhooks that this service sends: who hears of events, and the deliveries to each of them."""
