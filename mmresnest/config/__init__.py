"""Read configs, point them at data, adapt them to the machine.

Imports data, security, models, visualization and utils; not engine.
"""
