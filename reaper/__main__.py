"""``python -m reaper`` is the same program as ``reaper``."""

import sys

from reaper.cli import main

sys.exit(main())
