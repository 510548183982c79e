"""The straight line: gather, plan, keep, admit, dispose."""
