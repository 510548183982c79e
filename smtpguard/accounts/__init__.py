"""Console accounts: roles, sessions and API tokens."""
