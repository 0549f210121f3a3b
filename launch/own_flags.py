"""Flags of one command: absl's, in a set of their own.

absl usually keeps all flags of a process in one set. There two commands with a `--dataset` cannot be imported together,
nor one of them into a program that has a `--seed`; values stay from one call to the next; and in a notebook nobody has
parsed them. A set of their own is parsed by the command itself, anew in every call.
"""

import functools
from collections.abc import Iterable

from absl import flags, logging

_HELP = frozenset({"help", "helpshort", "helpfull", "h", "?"})


class OwnFlags:
    """A set of flags; `DEFINE_...` are absl's.

    Attributes:
        FLAGS: their values, after `parse`.
        argv: the command line they were read from.
        arguments: what of it is no flag.
        whole: the set that this is a part of, or itself.
    """

    def __init__(self) -> None:
        self.whole = self
        own = self.FLAGS = flags.FlagValues()
        self.argv: list[str] = []
        self.arguments: list[str] = []
        self.DEFINE_string = functools.partial(flags.DEFINE_string, flag_values=own)
        self.DEFINE_bool = functools.partial(flags.DEFINE_bool, flag_values=own)
        self.DEFINE_integer = functools.partial(flags.DEFINE_integer, flag_values=own)
        self.DEFINE_float = functools.partial(flags.DEFINE_float, flag_values=own)
        self.DEFINE_enum = functools.partial(flags.DEFINE_enum, flag_values=own)
        self.DEFINE_list = functools.partial(flags.DEFINE_list, flag_values=own)
        self.DEFINE_multi_string = functools.partial(flags.DEFINE_multi_string, flag_values=own)

    @property
    def all(self) -> list[flags.Flag]:
        """Every flag, by name."""
        return [self.FLAGS[name] for name in sorted(self.FLAGS)]


def part(whole: OwnFlags, names: Iterable[str]) -> OwnFlags:
    """Some flags of a set; a command that has them sees those that it does not have at their defaults."""
    own = OwnFlags()
    own.whole = whole
    for name in names:
        own.FLAGS[name] = whole.FLAGS[name]
    return own


def parse(argv: list[str], *sets: OwnFlags) -> list[str]:
    """Gives the flags of several sets the values of one command line, and those that are not in it their defaults.

    Args:
        argv: The program's name and what follows it.
        sets: What the command has; absl's own flags of logging, as `--verbosity`, are always there, too.

    Returns:
        What is no flag.

    Raises:
        flags.Error: An unknown flag, a value that is none, a flag that is needed and not there.
        ValueError: A value for a flag that has none.
    """
    together = flags.FlagValues()
    for own in sets:
        for flag in own.whole.all:
            flag.unparse()
        for flag in own.all:
            together[flag.name] = flag
    for flag in flags.FLAGS.get_flags_for_module(logging.__name__):
        together[flag.name] = flag
    arguments = together(argv)[1:]
    for own in sets:
        own.FLAGS.mark_as_parsed()
        own.whole.FLAGS.mark_as_parsed()
        own.argv, own.arguments = list(argv), arguments
    return arguments


def wants_help(argv: list[str]) -> bool:
    """Whether a command line asks for help, wherever in it."""
    given = argv[1 : argv.index("--") if "--" in argv else None]
    return any(a.startswith("-") and a.lstrip("-") in _HELP for a in given)


def help_text(about: str | None, *sets: OwnFlags) -> str:
    """What --help shows: a command's docstring, and its flags."""
    together = flags.FlagValues()
    for own in sets:
        together.append_flag_values(own.FLAGS)
    return f"{(about or '').strip()}\n\nflags:\n\n{together.get_help(include_special_flags=False)}\n"
