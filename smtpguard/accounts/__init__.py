"""People of the console: roles, accounts, sessions and tokens."""
