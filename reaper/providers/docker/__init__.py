"""Docker engines: their settings, client, rows, events and errors."""
