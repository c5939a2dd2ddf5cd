"""The page that ``mmresnest demo`` opens, to try a model on pictures.

``session`` has what stands behind the page, ``server`` answers the browser, ``static/`` is what the
browser is given. Imports what inference imports; of an exported file neither torch nor an mm
library. The server is that of Python itself: Gradio's releases refuse Pillow 13, which both stacks
are tested with, and a page of our own fetches nothing from elsewhere.
"""
