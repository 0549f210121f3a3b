"""The error that every way of loading parameters raises."""


class WeightsError(ValueError):
    """Parameters that are missing, broken or of another architecture; the message names the file and the way out."""
