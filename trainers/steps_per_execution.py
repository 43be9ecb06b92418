"""How many training steps Keras takes at once."""

from __future__ import annotations

# Of small models: what goes on between Python and the graph costs as much as some of their steps.
MOST = 32


def steps_per_execution(steps: int) -> int:
    """A divisor of an epoch's steps, or nearly, so that the last execution of an epoch does few steps too many.

    Keras only ever takes whole executions: 81 steps, 32 at a time, would be 96.
    """
    executions = -(-steps // MOST)
    return -(-steps // executions)
