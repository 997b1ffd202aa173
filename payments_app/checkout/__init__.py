"""The payment page, and the JavaScript client that it uses."""
