"""YAML with positions, and the daemon's settings. Imports none of ours."""
