"""The files below ``deploy/`` that are made from code: ``python -m devkit.generate`` writes them, a test compares them."""
