"""Train, test and report: the functions behind the commands, runner, loops and checkpoints.

Imports config, models, data, evaluation, visualization, report and utils; neither inference,
export nor analysis.
"""
