"""Fuzzing of every parser that reads bytes of others."""
