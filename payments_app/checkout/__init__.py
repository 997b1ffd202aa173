"""A page to pay on, and the JavaScript client that it is built on."""
