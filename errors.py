"""The one exception that means: the input is at fault, not the code.

`train.py` prints its message as one line, without a traceback, and exits with status 2.
"""


class InputError(ValueError):
    """A file, a setting or a checkpoint cannot be used as given.

    The message is one sentence or two: what was found, what was expected, what to do.
    """
