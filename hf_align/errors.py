"""The exceptions that mean "the user can fix this"."""


class UserError(ValueError):
    """Bad input: one sentence that names the row, field or argument and the fix.

    The command line prints it on one line and exits with status 2; in Python it is an ordinary `ValueError`.

    Example:
        >>> from hf_align import DPOConfig
        >>> from hf_align.errors import UserError
        >>> try:
        ...     DPOConfig("out", beta=-1)
        ... except UserError as error:
        ...     print(error)
        beta is -1; it must be above 0.
    """


def reason_of(error: BaseException) -> str:
    """The reason that an error of the system or of a library gives, on one line: no number, no class, no traceback."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class LoadError(UserError):
    """A model or data set can't be loaded from a name.

    Args:
        message: The reason.
        source: The name; the command line looks up the option that it was given to.
    """

    def __init__(self, message: str, source: str) -> None:
        super().__init__(message)
        self.source = source


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a sentence that says how to resume."""
