"""Text of others in messages of ours."""

_SHOWN = 120


def shown(text: object, *, most: int = _SHOWN) -> str:
    """What a file or server says, fit for a line of a terminal: no line breaks or escape sequences, and not endless."""
    given = str(text)[: most + 1]
    printable = "".join(c if c.isprintable() else "?" for c in given)
    return printable if len(printable) <= most else printable[:most] + "..."
