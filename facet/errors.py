"""The project's one exception."""


class InputError(Exception):
    """Input that cannot be used; the message names the file or key, the fault and the remedy."""
