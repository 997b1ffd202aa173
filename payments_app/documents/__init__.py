"""Invoices and credit notes as PDF, and payments as CSV."""
