"""Every metric of this program."""
