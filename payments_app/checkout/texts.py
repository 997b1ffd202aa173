"""Texts that the page's JavaScript shows, by the names that it uses. Fixed texts are in the template.

Statuses use the same words as the API's messages.
"""

from payments_app.i18n.messages import N_

TEXTS = {
    "loading": N_("Loading ..."),
    "signing_in": N_("Signing in ..."),
    "signed_in_as": N_("Signed in as %(name)s"),
    "session_over": N_("You were signed out. Sign in again to continue; nothing is lost."),
    "not_for_you": N_("This page is for patients and staff."),
    "no_answer": N_("The service does not answer. Please try again in a moment."),
    "consultation": N_("Consultation %(id)s"),
    "any_amount": N_("no fixed fee"),
    "amount_range": N_("From %(least)s to %(greatest)s"),
    "tax": N_("VAT %(rate)s"),
    "version": N_("version %(version)s"),
    # While a payment is under way.
    "sending": N_("Sending your payment ..."),
    "waiting": N_("No response yet. Trying again, safely (%(attempt)s of %(of)s) ..."),
    "asking": N_("No response in time. Checking the status ..."),
    "confirming": N_("Confirming ..."),
    "refunding": N_("Refunding ..."),
    "unknown": N_("The outcome is not known yet. It is safe to press the button again: you will not be charged twice."),
    # Outcomes.
    "paid": N_("Paid. Thank you."),
    "open": N_("Your payment is pending"),
    "already_paid": N_("This consultation is already paid"),
    "already_paid_notice": N_("This consultation is already paid; you have not been charged again."),
    "already_open_notice": N_("This consultation already has a payment; you have not been charged again."),
    "other_open_notice": N_(
        "You started a payment of %(amount)s by %(method)s earlier, and it is not finished; nothing was charged now."
        " To continue it, choose that amount and method."
    ),
    "ended_notice": N_("This payment has ended (%(status)s). You can pay the consultation again."),
    "card_notice": N_(
        "The card payment is open at Stripe (%(reference)s). This page has no card form; your own app must show one."
    ),
    "payment_heading": N_("Payment %(id)s"),
    "refunded_notice": N_("%(amount)s refunded."),
    "refund_failed_notice": N_("The refund of %(amount)s failed; no money was returned."),
    # An earlier attempt, whose response was lost, made the refund; or its outcome came while the client waited.
    "refund_made_before_notice": N_("The refund of %(amount)s was already made; nothing was sent again."),
    "refund_open_notice": N_(
        "The gateway has not reported the outcome of the refund yet. The service will check again."
    ),
    "refund_unknown": N_(
        "The outcome of the refund is not known yet. Sending the same refund again is safe: it is made once."
    ),
    "refund_heading": N_("Refund %(id)s"),
    "refund_review_question": N_(
        "Refund payment %(id)s - it needs a review. Without an amount, all money that it still holds is refunded."
    ),
    "refund_question": N_("Refund payment %(id)s - up to %(left)s can be refunded."),
    # Statuses of payments, invoices and refunds.
    "status_unpaid": N_("not paid"),
    "status_pending": N_("pending"),
    "status_processing": N_("processing"),
    "status_completed": N_("paid"),
    "status_partially_refunded": N_("partially refunded"),
    "status_refunded": N_("refunded"),
    "status_failed": N_("failed"),
    "status_cancelled": N_("cancelled"),
    "status_expired": N_("expired"),
    "invoice_pending": N_("due"),
    "invoice_paid": N_("paid"),
    "invoice_refunded": N_("refunded"),
    "invoice_void": N_("void"),
    "refund_status_pending": N_("in progress"),
    "refund_status_unknown": N_("not known yet"),
    "refund_status_succeeded": N_("done"),
    "refund_status_failed": N_("failed"),
}
