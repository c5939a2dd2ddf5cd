"""Read configs, point them at data, adapt them to the machine.

May import data, security, models, utils; not engine.
"""
