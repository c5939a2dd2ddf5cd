"""Models as files that run without this framework: ``mmresnest export``.

A graph (:mod:`.graphs`) says what a file computes, a format (:mod:`.formats`) how it is written and
run. The runner of these files is :mod:`mmresnest.inference.exported`.

Imports inference, engine, config, models, data and utils; not analysis.
"""
