"""Customer lists and who is on them."""
