"""People at a terminal: a file a command group, parsing words and calling services."""
