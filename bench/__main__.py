"""``python -m bench``."""

import sys

from bench.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
