"""Translated texts: English and Indonesian."""
