"""Files that configs inherit from, read once where a module of tests loads hundreds of configs."""

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mmengine.config import Config

DEPENDENT = re.compile(r'_base_|\{\{|\b(import|open|eval|exec)\b|_deprecation_|__')
"""What a file says that may mean another thing the next time: of bases, environment and modules."""


@contextmanager
def keep_base_files() -> Iterator[None]:
    """Have a file that depends on nothing but its text parsed once; each reader has a copy."""
    theirs, known = Config._file2dict, {}

    def read(
        filename, use_predefined_variables=True, use_environment_variables=True, lazy_import=None
    ):
        how = use_predefined_variables, use_environment_variables, lazy_import
        file = Path(filename)
        text = file.read_text('utf-8') if file.suffix == '.py' and file.is_file() else '_base_'
        if DEPENDENT.search(text):
            return theirs(filename, *how)
        key = str(filename), text, how
        if key not in known:
            known[key] = theirs(filename, *how)
        return copy.deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, '_file2dict', staticmethod(read))
        yield
