"""Alembic's steps from one schema to the next; run by migrate.py on a connection that holds the write lock."""
