"""Alembic's entry point: run the migrations on the connection of migrate.py, inside its transaction."""

from __future__ import annotations

from alembic import context

from smtpguard.database.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=connection.dialect.name == "sqlite")
context.run_migrations()
