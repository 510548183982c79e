"""Configuration files that are wrong, each beside the problems that it must give: NAME.yaml, NAME.expected."""
