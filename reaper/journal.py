"""What was deleted, when and why: a database in the state directory."""
