"""One pass over an endpoint: list, decide, re-check, delete, confirm, report. The only place that deletes."""
