"""Incident queries and the incident report: who sent what to whom, what the outcome was, and who decided."""
