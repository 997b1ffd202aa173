"""Texts that the pages' JavaScript shows, by the names that it uses. Fixed texts are in the templates.

Statuses use the same words as the API's messages.
"""

from payments_app.i18n.messages import N_

# On every page with a session (session.js).
SESSION_TEXTS = {
    "no_answer": N_("The service does not answer. Please try again in a moment."),
    "waiting": N_("No response yet. Trying again, safely (%(attempt)s of %(of)s) ..."),
    "asking": N_("No response in time. Checking the status ..."),
}

STATUS_TEXTS = {
    "status_unpaid": N_("not paid"),
    "status_pending": N_("pending"),
    "status_processing": N_("processing"),
    "status_completed": N_("paid"),
    "status_partially_refunded": N_("partially refunded"),
    "status_refunded": N_("refunded"),
    "status_failed": N_("failed"),
    "status_cancelled": N_("cancelled"),
    "status_expired": N_("expired"),
}

# On both pages: paying, and a payment that is not finished.
_PAYING = {
    **SESSION_TEXTS,
    **STATUS_TEXTS,
    "consultation": N_("Consultation %(id)s"),
    "amount_range": N_("From %(least)s to %(greatest)s"),
    "tax": N_("VAT %(rate)s"),
    # While a payment is under way.
    "sending": N_("Sending your payment ..."),
    "opening": N_("Taking you to the payment page ..."),
    "cancelling": N_("Cancelling ..."),
    "unknown": N_("The outcome is not known yet. It is safe to press the button again: you will not be charged twice."),
    # A payment that is not finished.
    # With a method's code at the end: for that method.
    "waiting_for": N_("Waiting for %(method)s"),
    "waiting_for_stripe": N_("Waiting for your card payment"),
    "waiting_lead": N_(
        "If you have paid, this takes a few seconds, sometimes a few minutes; you may close this page. If you have not,"
        " you can continue, or choose another way."
    ),
    "processing_lead": N_(
        "Your bank is carrying out the payment. This takes a few minutes, sometimes days; you may close this page."
    ),
    "checked_at": N_("Not paid yet, as of %(time)s. This page keeps checking."),
    "check_failed": N_("The check did not work. This page tries again."),
    "continue_with": N_("Continue with %(method)s"),
    "continue_with_stripe": N_("Continue by card"),
    "send_amount": N_("Send %(amount)s"),
    "send_by": N_("by %(method)s"),
    "send_until": N_("by %(method)s, until %(end)s"),
    "send_exactly": N_("Send exactly %(amount)s, with %(number)s as the message."),
    "copied": N_("Copied."),
    "copy_failed": N_("This browser does not allow copying; please write the number down."),
    "already_paid": N_("This consultation is already paid"),
    "other_open_notice": N_(
        "You started a payment of %(amount)s by %(method)s earlier, and it is not finished; nothing was charged now."
        " Continue it, or cancel it and choose again."
    ),
}

# On the page of a payment link.
LINK_TEXTS = {
    **_PAYING,
    "next_redirect": N_("You pay on the secure page of our payment partner and come back here"),
    "next_redirect_stripe": N_("On the secure page of our payment partner; you come back here"),
    "next_redirect_gcash": N_("You continue in GCash and come back here"),
    "next_redirect_e_wallet": N_("You continue in your wallet and come back here"),
    "next_instructions": N_("You send it yourself; we tell you how, and confirm it when it has arrived"),
    "read_only_lead": N_(
        "This link has expired: it shows the payment. To pay or to cancel, ask the clinic for a new link."
    ),
    "pay_amount_by": N_("Pay %(amount)s by %(method)s"),
    "pay_by": N_("Pay by %(method)s"),
    "cancelled_notice": N_("Cancelled; nothing was charged. How would you like to pay now?"),
    "expired_notice": N_(
        "Your payment by %(method)s was not finished in time; nothing was charged. You can pay again."
    ),
    "paid_thanks": N_("Paid. Thank you, %(name)s."),
    "paid_lead": N_("%(amount)s by %(method)s, %(at)s"),
    "already_paid_lead": N_("It was paid on %(at)s. You have not been charged again."),
    "failed_heading": N_("%(method)s did not take it"),
    "failed_heading_stripe": N_("Your card was not charged"),
    "failed_lead": N_("Nothing was charged. You can try again or pay another way."),
    "refunded_heading": N_("%(amount)s refunded"),
    "refunded_lead": N_("This payment was returned in full. The clinic says whether there is still something to pay."),
    "ended_heading": N_("Not paid"),
    "ended_lead": N_("This payment has ended (%(status)s); nothing was charged."),
    "amount": N_("Amount"),
    "paid_by": N_("Paid by"),
    "invoice": N_("Invoice"),
    "reference": N_("Reference"),
    "invoice_pdf": N_("Invoice (PDF)"),
    # Beside the amount of its refund.
    "credit_note_pdf": N_("Credit note for %(amount)s (PDF)"),
    "refunded": N_("Refunded"),
    "refund_to_be_sent": N_("Refund to be sent by the clinic"),
    "payment": N_("Payment"),
}

# On the page for those who log in.
TEXTS = {
    **_PAYING,
    "loading": N_("Loading ..."),
    "signing_in": N_("Signing in ..."),
    "signed_in_as": N_("Signed in as %(name)s"),
    "session_over": N_("You were signed out. Sign in again to continue; nothing is lost."),
    "not_for_you": N_("This page is for patients and staff."),
    "any_amount": N_("no fixed fee"),
    "version": N_("version %(version)s"),
    # While a payment is under way.
    "refunding": N_("Refunding ..."),
    # Outcomes.
    "paid": N_("Paid. Thank you."),
    "already_paid_notice": N_("This consultation is already paid; you have not been charged again."),
    "already_open_notice": N_("This consultation already has a payment; you have not been charged again."),
    "ended_notice": N_("This payment has ended (%(status)s). You can pay the consultation again."),
    "payment_heading": N_("Payment %(id)s"),
    "refunded_notice": N_("%(amount)s refunded."),
    "refund_failed_notice": N_("The refund of %(amount)s failed; no money was returned."),
    # An earlier attempt, whose response was lost, made the refund; or its outcome came while the client waited.
    "refund_made_before_notice": N_("The refund of %(amount)s was already made; nothing was sent again."),
    "refund_open_notice": N_(
        "The gateway has not reported the outcome of the refund yet. The service will check again."
    ),
    "refund_requested_notice": N_("The refund of %(amount)s waits for another admin's approval; nothing was sent."),
    "refund_to_be_sent_notice": N_("The refund of %(amount)s is recorded: send the money, then record the transfer."),
    "refund_unknown": N_(
        "The outcome of the refund is not known yet. Sending the same refund again is safe: it is made once."
    ),
    "refund_heading": N_("Refund %(id)s"),
    "refund_review_question": N_(
        "Refund payment %(id)s - it needs a review. Without an amount, all money that it still holds is refunded."
    ),
    "refund_question": N_("Refund payment %(id)s - up to %(left)s can be refunded."),
    # Statuses of invoices and refunds.
    "invoice_pending": N_("due"),
    "invoice_paid": N_("paid"),
    "invoice_refunded": N_("refunded"),
    "invoice_void": N_("void"),
    "refund_status_requested": N_("waiting for approval"),
    "refund_status_pending": N_("in progress"),
    "refund_status_to_be_sent": N_("to be sent by the clinic"),
    "refund_status_unknown": N_("not known yet"),
    "refund_status_succeeded": N_("done"),
    "refund_status_failed": N_("failed"),
}
