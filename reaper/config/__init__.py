"""The configuration: file and environment, read into frozen settings."""
