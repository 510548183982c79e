"""The store as one object: opened and checked, written by one thread, erased by retention."""
