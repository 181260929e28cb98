"""Reports of a sweep: logs, tables, JSON, metrics, the journal."""
