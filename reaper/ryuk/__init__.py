"""``reaper ryuk``: Testcontainers' resource reaper, for one session."""
