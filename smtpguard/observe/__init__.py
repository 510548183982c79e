"""Logs and metrics: reads audit events only."""
