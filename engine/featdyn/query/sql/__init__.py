"""SQL over a store: its arrays as tables of DuckDB, of which only what a question needs is read."""

from featdyn.query.sql.ask import sql, tables

__all__ = ["sql", "tables"]
