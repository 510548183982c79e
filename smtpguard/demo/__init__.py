"""A play in front of the real thing: the guard's own processes on loopback, synthetic people, and a relay that only records.

relay (takes mail and forwards none), letters (what is written), stage (files and processes), play (scenes and what is
expected of each), script (the scenes in order).
"""
