"""Metrics for Prometheus. They are numbers only: no address, no subject, no name of a person."""
