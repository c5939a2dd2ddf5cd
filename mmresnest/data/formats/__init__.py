"""The data folders of other tools: recognized, read into one form, and written.

:mod:`.table` lists the formats, each with what its folders look like and what reads them;
:mod:`.recognize` chooses the one that a folder has. A reader makes a COCO table for each split, or
pairs of images and masks; :mod:`.derive` divides them where asked and writes what is derived into
the cache, where the readers of this package's own layouts take it up, with all of their checks.
Imports what :mod:`mmresnest.data` may, and PyYAML late.
"""
