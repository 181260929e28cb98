"""What is told of a sweep: logs, tables, JSON, metrics, the journal."""
