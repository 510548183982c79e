"""The straight line of one message: gather, plan, keep the content, admit, dispose."""
