"""Held messages: votes, quorum, deadlines, what a decision covers, and how it is revoked."""
