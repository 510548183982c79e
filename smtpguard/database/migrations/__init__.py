"""The Alembic migrations. migrate.py runs them on a connection that holds the write lock."""
