"""One file a kind of page: its routes, and what it gathers to be shown."""
