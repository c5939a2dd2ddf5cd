"""Weights: find, read, match, convert, load.

>>> from mmresnest.models import weights
>>> print(weights.load(network, 'resnest50-528c19ca.pth'))
"""

from .conversion import convert_file
from .hub import PUBLISHED, SCHEME, fetch_published, locate_checkpoint
from .layouts import CLASSIFIER, LAYOUTS, convert, recognize_backbone
from .loading import convert_on_load, load
from .match import LoadReport
from .reader import read_checkpoint

__all__ = [
    'CLASSIFIER',
    'LAYOUTS',
    'LoadReport',
    'PUBLISHED',
    'SCHEME',
    'convert',
    'convert_file',
    'convert_on_load',
    'fetch_published',
    'load',
    'locate_checkpoint',
    'read_checkpoint',
    'recognize_backbone',
]
