"""A Docker socket that puts labels on what is created through it, and passes every other byte on."""

from reaper.run.proxy.server import DockerProxy

__all__ = ["DockerProxy"]
