"""``reaper serve``: the daemon, its scheduler, endpoints, leases and pages."""
