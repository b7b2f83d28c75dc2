"""Alembic's hook: runs the migrations on the connection that `orchestrator.storage.migrate` hands over."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"], version_table="schema_version", version_table_schema="public"
)
with context.begin_transaction():
    context.run_migrations()
