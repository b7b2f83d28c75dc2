"""The error of a start that is refused. It is apart from the settings, so that a command for another machine need not import them."""


class RefusedStartError(ValueError):
    """The product refuses to start with these settings. The message says which one to change."""
