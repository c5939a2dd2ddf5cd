"""Metadata of mmresnest. Nothing here imports torch, mmengine or mmresnest itself."""
import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def version() -> str:
    """Reads the version from the text of mmresnest/version.py."""
    text = (ROOT / 'mmresnest' / 'version.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE).group(1)


setup(
    name='mmresnest',
    version=version(),
    packages=find_packages(include=['mmresnest', 'mmresnest.*']),
    python_requires='>=3.10',
    entry_points={'console_scripts': ['mmresnest=mmresnest.cli:main']},
)
