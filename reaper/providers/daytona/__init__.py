"""Organisations of Daytona: their settings, client, rows and links."""
