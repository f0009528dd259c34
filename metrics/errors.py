"""The one exception that a command shows as a single line and exit code 2."""


class InputError(ValueError):
    """Bad input: says what was got, what was expected, and the exact next command or value."""


class UndefinedError(InputError):
    """A statistic that these images leave undefined, while others can be measured."""


MAX_ERRORS = 100  # images of a set that may be lost before a command stops, unless the user says otherwise
