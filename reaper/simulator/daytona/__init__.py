"""A simulated server of Daytona."""
