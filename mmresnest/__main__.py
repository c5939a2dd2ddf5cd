"""``python -m mmresnest`` is ``mmresnest``, also where the folder of scripts is not on PATH."""

import sys

from .cli.main import main

if __name__ == '__main__':
    sys.exit(main())
