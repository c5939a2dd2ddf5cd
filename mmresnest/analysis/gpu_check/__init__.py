"""Check and measure everything that a GPU may change, by one command and within eight minutes.

    equality    networks, fast forms, operators, training steps: against double precision on the CPU
    speed       forms of a backbone in turn: time and peak memory
    training    a detector in mixed precision for two minutes: images a second, waiting time, mAP

:mod:`.supervisor` runs the parts in processes of their own and writes what they found; the CPU runs
the same code at toy sizes.
"""

from .supervisor import CheckPlan, check_gpu

__all__ = ['CheckPlan', 'check_gpu']
