"""Trains a config: the same as ``mmresnest train``, from a clone that need not be installed."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == '__main__':
    from mmresnest.cli import main
    sys.exit(main(['train', *sys.argv[1:]]))
