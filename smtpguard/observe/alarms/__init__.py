"""Alarms: what a person must hear of within minutes. They are sent by a way that needs neither the store nor the
guarded relay.
"""
