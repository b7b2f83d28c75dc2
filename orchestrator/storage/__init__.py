"""Persistence: tables, one module of statements per table family, migrations."""
