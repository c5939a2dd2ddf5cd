# Logs, as mmseg writes them.
_base_ = 'mmseg::_base_/default_runtime.py'
