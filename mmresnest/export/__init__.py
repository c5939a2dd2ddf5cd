"""Models as files that run without this framework: ``mmresnest export``.

A graph (:mod:`.graphs`) says what a file computes, a format (:mod:`.formats`) how it is written and
run; :mod:`.runtime` asks a file about images and needs neither torch nor an mm library.
"""
