"""What lasts, on SQLite and on PostgreSQL."""
