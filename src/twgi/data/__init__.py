"""Training records, token rows, and the way between them."""
