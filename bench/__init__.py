"""Benchmarks. ``python -m bench`` compares smtpguard with its peers in one run. They assert nothing."""
