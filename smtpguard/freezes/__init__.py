"""Freezes and thaws, and the watch over the gate that is asked before every final dot."""
