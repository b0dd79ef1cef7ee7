"""What can go wrong in a way that the user should read in one sentence, and the exit codes of every verb."""

DONE = 0
FAILED = 1  # some or all of the work failed
BAD_INPUT = 2  # config, flag or input file
DIVERGED = 3  # a non-finite loss
STOPPED = 75  # preempted or asked to stop: start again and it goes on (EX_TEMPFAIL)


class UserError(Exception):
    """One sentence for the user: what, where, which rule, what to do. Ends a verb with `code`, without a traceback."""

    code = BAD_INPUT


class WorkFailed(UserError):
    """The input was fine, the work was not: a full disk, a store that cannot be written, a run that crashed."""

    code = FAILED


class Stopped(UserError):
    """Asked to stop by a signal or a preemption notice; what was done is saved."""

    code = STOPPED
