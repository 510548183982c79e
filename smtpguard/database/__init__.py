"""One database, SQLite or PostgreSQL: engine, tables, migrations, and the open write transaction (batch)."""
