"""The demo: the real processes on loopback, invented people, and a relay that only records."""
