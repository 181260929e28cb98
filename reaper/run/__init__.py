"""``reaper run``: a command, the lease of what it makes, and the clean-up after it."""
