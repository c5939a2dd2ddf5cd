"""Read files of strangers without running what they carry.

People download checkpoints, configs, data sets and exported models, and run them beside their own
files. What such a file may do is decided here, and nowhere else; :mod:`mmresnest.compat.readers`
puts it in place of what the mm libraries do. This package imports :mod:`mmresnest.utils`, and
mmengine in the modules of configs; torch only once a checkpoint is read.

* A checkpoint (``.pth``, ``.pt``) may hold containers, numbers, texts, tensors, arrays and the
  histories of mmengine, and claim no more than it is long: :mod:`.torch_load` goes through the file
  by the unpickler of :mod:`.pickles` before torch reads it. A name in a pickle is bound to a
  function of ours, never to the named one: :mod:`.placeholders`.
* A data file (``.pkl``) may hold the same and is read by the same unpickler; ``.yml`` plain yaml:
  :mod:`.data_files`.
* A config that is read as data (``--safe-config``) may assign literals, arithmetic and
  comprehensions, and call thirteen of Python's functions: :mod:`.config_language`. It may inherit
  from other files: :mod:`.config_reader`. What it names must be in the registries of six packages:
  :mod:`.config_names`.
* The record of a run that is resumed may name checkpoints in the folders of that run, which the run
  may delete: :mod:`.resume`.

A user may trust files: checkpoints and data files by ``MMRESNEST_TRUST_CHECKPOINTS=1`` or
``--trust-checkpoint``, never those that are fetched from the net; configs by leaving
``--safe-config`` out, which is how mmengine reads them. Refusals are a
:class:`~mmresnest.errors.UserError` that names the file and what it asked for.
"""
