"""One database, SQLite or PostgreSQL: engine, tables, migrations, and the write transaction that is open (batch)."""
