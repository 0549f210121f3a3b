"""A finding: what is odd about which samples, and what to do."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

# So many samples are named in a line.
_NAMED = 5


class Finding(NamedTuple):
    """What is odd about a batch, or some samples of it.

    Attributes:
        rule: a word for programs, such as "exposure"; `docs/health.md` has all of them.
        samples: the names of those that are odd; none where it concerns all.
        what: what is odd about them, with their number.
        advice: what to do.
    """

    rule: str
    samples: tuple[str, ...]
    what: str
    advice: str

    @property
    def text(self) -> str:
        """What is odd, with the names of the first samples."""
        named = ", ".join(self.samples[:_NAMED])
        more = f" and {len(self.samples) - _NAMED} more" if len(self.samples) > _NAMED else ""
        return f"{self.what}{': ' if named else ''}{named}{more}"

    def __str__(self) -> str:
        return f"{self.text}; {self.advice}"

    def facts(self) -> Mapping[str, Any]:
        """The same for programs; fit for JSON."""
        return {**self._asdict(), "samples": list(self.samples)}


class Odd(NamedTuple):
    """What a rule found: `Finding`, its samples by their indices."""

    rule: str
    samples: tuple[int, ...]
    what: str
    advice: str


def named(found: Sequence[Odd], names: Sequence[str]) -> Iterator[Finding]:
    """Findings with the samples' names."""
    for odd in found:
        yield Finding(odd.rule, tuple(names[i] for i in odd.samples), odd.what, odd.advice)


def counted(few: int, many: int, thing: str = "pictures") -> str:
    """Such as "1 of 40 pictures is" or "3 of 40 pictures are"."""
    return f"{few} of {many} {thing} {'is' if few == 1 else 'are'}"
