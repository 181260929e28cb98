"""A Docker Engine API and a Daytona API over real HTTP, for tests, trials of policies and `reaper demo`.

Harsh on purpose: it does what the real servers were seen to do, and breaks on demand.
"""
