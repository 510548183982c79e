"""Introduces everyone: the only room that knows all the others, and the only one that builds across them.

files (what stands on disk), policies (what is in force, followed), lists (registry and refresher), telling (the ledger that
logs), start (before the parts), services (what the command line works with), parts, proxy and delivery (what ``serve`` runs),
relay, reading, probe, clock. Never here: a decision about mail.
"""
