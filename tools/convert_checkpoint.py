"""Rewrites a checkpoint in another layout: ``mmresnest convert`` from a clone, installed or not."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == '__main__':
    from mmresnest.cli.main import main

    sys.exit(main(['convert', *sys.argv[1:]]))
