"""Everything that lasts, as one object: opened and checked, written by one thread, forgotten in time."""
