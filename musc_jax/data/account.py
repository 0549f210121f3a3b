"""The account of a category: what its files were read as, what was assumed, and what was passed over."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Account:
    """What was decided about the files of a category as a whole.

    Attributes:
        facts: by topic, for programs; fit for JSON.
        lines: for people, each said once.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def add(self, topic: str, facts: Mapping[str, Any] | list[Any] | str | float | None, line: str = "") -> None:
        """Add what was found out about a topic.

        Args:
            topic: a word for `facts`, each of them once.
            facts: fit for JSON.
            line: what people are told; "" where nothing was assumed that they would not expect.

        Raises:
            ValueError: the topic is there already.
        """
        if topic in self.facts:
            raise ValueError(f"expected a topic that is not there yet, received {topic!r}")
        self.facts[topic] = facts
        if line:
            self.lines.append(line)
