"""Webhooks: tell other systems of journal entries, signed, in order, at least once.

A cursor for each hook follows the journal, so an entry is sent only if it was committed, and no committed entry is
missed.
"""
