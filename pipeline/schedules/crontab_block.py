"""A schedule for crontab(5)."""

from __future__ import annotations

import shlex

from pipeline.schedules.scheduled_command import ScheduledCommand


def crontab_block(scheduled: ScheduledCommand) -> str:
    """The lines for a crontab, between marks by which pipeline.schedules.replace_block finds them again.

    CRON_TZ holds for the lines after it too, so the block belongs at the end. `ingraph retrain` starts no second run
    beside one that runs; to queue, flock(1) waits for the config file. cron has no window: the shell looks at the time.
    """
    options = scheduled.options
    queue = ["flock", scheduled.command[2]] if options.overlap == "queue" else []
    steps = [f"cd {shlex.quote(scheduled.folder)}", shlex.join([*queue, *scheduled.command])]
    if options.closes:
        steps.insert(0, f'[ "$(date +%s)" -lt {options.closes.timestamp():.0f} ]')
    if options.opens:
        steps.insert(0, f'[ "$(date +%s)" -ge {options.opens.timestamp():.0f} ]')
    command = " && ".join(steps).replace("%", r"\%")  # cron reads a bare % as the end of the line
    return (
        f"# begin {scheduled.title}: written by `ingraph schedule apply`; keep at the end\n"
        f"CRON_TZ={options.time_zone}\n"
        f"{options.expression.text} {command}\n"
        f"# end {scheduled.title}\n"
    )
