"""Tests of the commands, run as people type them."""
