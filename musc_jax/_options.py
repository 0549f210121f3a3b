"""Options as their plain types, or an error with expected and received: all of them before the first sample is read."""

import math
import numbers
import operator
from collections.abc import Collection, Iterable
from typing import Any


class ConfigError(ValueError):
    """Options that contradict each other or have no meaning; the message says which and what to pass instead."""


def refuse(name: str, expected: str, value: Any) -> ConfigError:
    """The error to raise for a value that is not what was expected."""
    shown = ",".join(map(str, value)) if isinstance(value, tuple) and value else repr(value)
    return ConfigError(f"{name}: expected {expected}; received {shown}")


def one_of(name: str, value: Any, known: Collection[str]) -> str:
    """A string out of those that are known."""
    if not isinstance(value, str) or value not in known:
        raise refuse(name, f"one of {', '.join(known)}", value)
    return value


def instance(name: str, value: Any, kind: type) -> Any:
    """A value of a class."""
    if not isinstance(value, kind):
        raise refuse(name, f"a {kind.__name__}", value)
    return value


def whole(name: str, value: Any, *, lowest: int) -> int:
    """A whole number from the lowest on; NumPy's count, True and 2.0 do not."""
    try:
        found = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = None
    if found is None or found < lowest:
        raise refuse(name, f"a whole number of at least {lowest}", value)
    return found


def wholes(name: str, value: Any, *, lowest: int, odd: bool = False) -> tuple[int, ...]:
    """At least one whole number, from a tuple or any other sequence."""
    expected = f"{'odd' if odd else 'whole'} numbers of at least {lowest}, and one of them at least"
    try:
        found = tuple(whole(name, one, lowest=lowest) for one in _sequence(value))
    except (ConfigError, TypeError):
        found = ()
    if not found or (odd and not all(one % 2 for one in found)):
        raise refuse(name, expected, value)
    return found


def names(name: str, value: Any, known: Collection[str]) -> tuple[str, ...]:
    """Strings out of those that are known, maybe none."""
    try:
        return tuple(one_of(name, one, known) for one in _sequence(value))
    except TypeError:
        raise refuse(name, f"a tuple of {', '.join(known)}", value) from None


def _sequence(value: Any) -> Iterable:
    if isinstance(value, str):
        raise TypeError("a string is no sequence of options")
    return iter(value)


def number(
    name: str,
    value: Any,
    *,
    expected: str,
    above: float = -math.inf,
    lowest: float = -math.inf,
    highest: float = math.inf,
) -> float:
    """A finite number above one bound, or from it on, and up to another."""
    fine = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not fine or not (math.isfinite(value) and above < value <= highest and value >= lowest):
        raise refuse(name, expected, value)
    return float(value)
