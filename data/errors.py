"""The one error that a user of `data` can cause: a sentence that names the path or key, and the fix."""


class DataError(ValueError):
    """Bad input or a bad place for data. Its text is one line and is shown without a traceback."""
