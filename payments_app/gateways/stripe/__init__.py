"""Stripe: the API client, the conversion of its objects to plain values, and its webhook events."""
