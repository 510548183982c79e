"""The policy: facts in, a verdict out. Pure, total, deterministic: no await, no clock, no socket, no log."""
