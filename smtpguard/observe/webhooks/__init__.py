"""Webhooks: other systems are told what stands in the journal, signed, in order, at least once.

payload (what is told), signature (how it is known to be ours), sending (one attempt), telling (which, when, and when no more).
What is told follows from the journal by a cursor for each hook, so that nothing is told that was not committed, and nothing
that was committed is forgotten.
"""
