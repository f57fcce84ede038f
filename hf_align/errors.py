"""The one exception that means "the user can fix this"."""


class UserError(ValueError):
    """Bad input: one sentence that names the row, field or argument and the fix.

    The command line prints it on one line and exits with status 2; in Python it is an ordinary `ValueError`.
    """
