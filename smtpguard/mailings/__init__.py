"""Mailings: which messages are copies, whom they reached, what people decided, and stages."""
