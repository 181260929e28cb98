"""What agents and harnesses written in Python import: everything here is exported by the package ``reaper`` itself."""
