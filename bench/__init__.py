"""Measurements. ``python -m bench`` compares smtpguard with its peers in one run; nothing here asserts."""
