"""Metrics: what operations scrape and are alerted on. Numbers alone: no address, no subject, nobody's name.

Never here: where the numbers come from, save the journal's events (app.watching), or the port that they are served on (app.metrics).
"""
