"""Alarms: what a person has to hear of within minutes, told by a way that needs neither the store nor the guarded relay."""
