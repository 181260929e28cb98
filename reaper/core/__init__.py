"""The rules, and the words that they are written in. Pure: no I/O, no clock, no logging."""
