"""The exit codes of the program."""

BUG = 1
USAGE = 2
FAILED = 3
CAP = 4
UNLISTED = 5
LEFT = 6
OF_SIGNAL = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}
