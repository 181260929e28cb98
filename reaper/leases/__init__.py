"""Leases: their records and store, the watcher of their holders, and the ways in."""
