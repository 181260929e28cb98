"""Development support: a private Docker engine and a fault-injecting proxy, for tests, benchmarks and demos.

Nothing in here ships in the wheel, and nothing in `reaper` may import it.
"""
