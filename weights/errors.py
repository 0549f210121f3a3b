"""The error every way of loading parameters raises, and how names out of a file are shown in it."""

_SHOWN = 120


class WeightsError(ValueError):
    """Parameters that are missing, broken or of another architecture; the message names the file and the way out."""


def shown(name: object) -> str:
    """What a file says, fit for one line of a terminal: no line breaks, no escape sequences, not endless."""
    text = "".join(c if c.isprintable() else "?" for c in str(name)[: _SHOWN + 1])
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
