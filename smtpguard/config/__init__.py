"""YAML with positions, and the daemon's settings. Imports no other room."""
