"""Metrics: what operations scrape and are alerted on. Numbers alone: no address, no subject, nobody's name."""
