"""The one error that the toolkit raises on purpose."""


class ToolkitError(Exception):
    """What was asked for cannot be done as asked; its text is one line. Commands exit with code 2."""
