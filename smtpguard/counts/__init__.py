"""Distinct people over all transactions: how many in a window, and whom a sender has written to before."""
