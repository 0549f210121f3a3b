"""Docstrings of what is public: every argument and every field is described, and nothing that is not there."""

import ast
import inspect
import re
import textwrap
from itertools import pairwise

import pytest

import musc_jax
import weights
from musc_jax import data, metrics, pipeline

MODULES = (musc_jax, metrics, data, weights)


def exports():
    for module in MODULES:
        # The metrics list no exports: whatever is not private is one.
        own = [k for k, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__ and k[0] != "_"]
        for name in getattr(module, "__all__", own):
            yield f"{module.__name__}.{name}", getattr(module, name)
    yield from {"pipeline.score": pipeline.score, "pipeline.Results": pipeline.Results}.items()


CLASSES = {name: value for name, value in exports() if inspect.isclass(value)}
FUNCTIONS = {name: value for name, value in exports() if inspect.isfunction(value)} | {
    f"{name}.{key}": getattr(cls, key)
    for name, cls in CLASSES.items()
    for key, value in vars(cls).items()
    if key[0] != "_" and inspect.isfunction(getattr(value, "__func__", value))
}


def entries(docstring, section):
    """The names that a section of a Google-style docstring describes, in their order."""
    lines = iter(inspect.cleandoc(docstring).splitlines())
    found = []
    if f"{section}:" not in lines:  # leaves the iterator behind the heading
        return found
    for line in lines:
        if line and not line.startswith(" "):
            break
        entry = re.match(r" {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*): +\S", line)
        assert entry or not line or line.startswith(" " * 8), f"expected `name: what it is`, received {line!r}"
        found += re.findall(r"\w+", entry[1]) if entry else []
    return found


def described_fields(cls):
    """Those under "Attributes", and those with a string of their own below them."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body
    own = [
        field.target.id
        for field, after in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    ]
    return entries(cls.__doc__, "Attributes") + own


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_and_result_are_described(name):
    function = FUNCTIONS[name]
    signature = inspect.signature(function)
    expected = [parameter for parameter in signature.parameters if parameter not in ("self", "cls")]
    assert entries(function.__doc__, "Args") == expected
    constructor = inspect.ismethod(function)
    if signature.return_annotation is not None and not constructor:
        assert re.search("^ *(Returns|Yields):", function.__doc__, re.M) or len(function.__doc__.splitlines()) == 1


@pytest.mark.parametrize("name", CLASSES)
def test_fields_are_described(name):
    cls = CLASSES[name]
    fields = getattr(cls, "_fields", None) or getattr(cls, "__dataclass_fields__", ())
    described = described_fields(cls)
    assert sorted(described) == sorted(set(described)), "each once"
    # A property may be described among the fields.
    extra = {field for field in set(described) - set(fields) if not hasattr(cls, field)}
    assert not fields or (set(fields) <= set(described) and not extra), (fields, described)


def test_a_section_is_read_line_by_line():
    text = """Nothing: about a.

    Args:
        a, b: Both, and c: too.
            d: as well
        **c: More.

    Returns:
        d: a number.
    """
    assert entries(text, "Args") == ["a", "b", "c"]
    assert entries(text, "Raises") == []
    with pytest.raises(AssertionError, match="expected `name: what it is`"):
        entries("A.\n\nArgs:\n    a is a number\n", "Args")
