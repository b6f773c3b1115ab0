"""The one exception that means: the source cannot be imported, and why."""


class ImportRefused(Exception):
    """Carries a message for the user: the value that is wrong and the way out."""
