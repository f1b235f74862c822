"""Errors that a user can mend, and the exit statuses of the commands."""

EXIT_INPUT = 2  # an input cannot be used
EXIT_INTERRUPTED = 75  # stopped on request; can be continued ("try again" in sysexits.h)
EXIT_KEYBOARD = 130  # a second Ctrl-C


class InputError(ValueError):
    """A file, a setting or a checkpoint cannot be used as given.

    The message is one or two sentences: what was found, what was expected, what to do. A command
    prints it as one line, without a traceback, and exits with `EXIT_INPUT`.
    """


class Interrupted(Exception):
    """The run was asked to stop and can be continued from what it has saved."""
