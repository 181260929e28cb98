"""A Docker Engine API and a Daytona API over real HTTP, for tests, trials of policies and `reaper demo`.

Harsh on purpose: it does what the real servers were seen to do, and breaks on demand.
"""

EXAMPLE_FAULTS = '"status:503,method=DELETE,path=/sandbox/,times=3", "latency:50ms", "reset,after,every=10"'
