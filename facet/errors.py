"""The project's one exception."""

LONGEST = 1000


class InputError(Exception):
    """Input that cannot be used; the message names the file or key, the fault and the remedy.

    It is one line, whatever the names in foreign files hold: line ends, codes that terminals obey,
    thousands of letters.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        line = line if len(line) <= LONGEST else f"{line[: LONGEST - 205]} ... {line[-200:]}"
        super().__init__("".join(c if c.isprintable() else "\ufffd" for c in line))
