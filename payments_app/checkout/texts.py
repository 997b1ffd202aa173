"""What the page says once it is open; what it says from the start stands in its template.

Named as the modules ask for them. Statuses are told in the words of the API's messages, where they stand alone.
"""

from payments_app.i18n.messages import N_

TEXTS = {
    "loading": N_("Loading ..."),
    "signing_in": N_("Signing in ..."),
    "signed_in_as": N_("Signed in as %(name)s"),
    "session_over": N_("You have been signed out. Sign in again to go on; nothing is lost."),
    "not_for_you": N_("This page is for patients and staff."),
    "no_answer": N_("The service does not answer. Please try again in a moment."),
    "consultation": N_("Consultation %(id)s"),
    "any_amount": N_("no fixed fee"),
    "amount_range": N_("From %(least)s to %(greatest)s"),
    "tax": N_("VAT %(rate)s"),
    "version": N_("version %(version)s"),
    # While a payment is under way.
    "sending": N_("Sending your payment ..."),
    "waiting": N_("No answer yet. Trying again, safely (%(attempt)s of %(of)s) ..."),
    "asking": N_("No answer in time. Asking what became of it ..."),
    "confirming": N_("Confirming ..."),
    "refunding": N_("Refunding ..."),
    "unknown": N_(
        "We do not know yet what became of it. Pressing the button again is safe: you will not be charged twice."
    ),
    # What came of it.
    "paid": N_("Paid. Thank you."),
    "open": N_("Your payment is waiting"),
    "already_paid": N_("This consultation is already paid"),
    "already_paid_notice": N_("This consultation is already paid; you have not been charged again."),
    "already_open_notice": N_("This consultation already has a payment; you have not been charged again."),
    "other_open_notice": N_(
        "A payment of %(amount)s by %(method)s was begun before and is not finished; nothing was charged now."
        " To go on with it, choose that amount and method."
    ),
    "ended_notice": N_("This payment is over: %(status)s. You can pay the consultation anew."),
    "card_notice": N_("Open at Stripe as %(reference)s. This page has no form for cards: an app of yours shows it."),
    "payment_heading": N_("Payment %(id)s"),
    "refunded_notice": N_("%(amount)s refunded."),
    "refund_failed_notice": N_("The refund of %(amount)s has failed; no money was returned."),
    # An attempt whose answer was lost had made it, or its outcome was waited for.
    "refund_made_before_notice": N_("The refund of %(amount)s had been made before; nothing was sent again."),
    "refund_open_notice": N_("The gateway has not said yet what became of the refund. It will be followed up."),
    "refund_unknown": N_(
        "We do not know yet what became of the refund. Sending the same refund again is safe: it is made once."
    ),
    "refund_heading": N_("Refund %(id)s"),
    "refund_review_question": N_(
        "Refund payment %(id)s? It needs a review: without an amount, all money that it still holds is refunded."
    ),
    "refund_question": N_("Refund payment %(id)s? %(left)s is left of it."),
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
    "invoice_pending": N_("to be paid"),
    "invoice_paid": N_("settled"),
    "invoice_refunded": N_("refunded"),
    "invoice_void": N_("void"),
    "refund_status_pending": N_("under way"),
    "refund_status_unknown": N_("not known yet"),
    "refund_status_succeeded": N_("done"),
    "refund_status_failed": N_("failed"),
}
