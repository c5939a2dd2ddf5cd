"""Prints a config with all it inherits: the same as ``mmresnest print-config``, from a clone that need not be installed."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == '__main__':
    from mmresnest.cli import main
    sys.exit(main(['print-config', *sys.argv[1:]]))
