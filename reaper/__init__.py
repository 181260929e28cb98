"""reaper: delete the Docker containers and cloud sandboxes that benchmark runs leave behind.

The package is imported by every command, so nothing heavier than the version stands here.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
