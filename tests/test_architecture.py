"""What docs/architecture.md says of the tree is so."""

import ast
import re
from pathlib import Path

import pytest

import musc_jax  # noqa: F401 - fills the table of operations
from musc_jax.kernels import FORMS, OPERATIONS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
QUOTED = re.compile(r"`([^`\n]+)`")


def located(path):
    """The file or folder of that name, in the project or in the library."""
    return next((base / path for base in (ROOT, ROOT / "musc_jax") if (base / path).exists()), None)


def section(title):
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def cells(table):
    """The rows of a table without its head."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


EQUATIONS = cells(section("Where an equation stands, and its forms"))


def paths(text):
    return [quoted for quoted in QUOTED.findall(text) if re.fullmatch(r"[\w./]+(\.py|\.md|/)", quoted)]


def numbers(text):
    """Equations that a text mentions: "eq. 3-4" are two."""
    found = re.findall(r"eq\. (\d+)(?:-(\d+))?", text)
    return {number for first, last in found for number in range(int(first), int(last or first) + 1)}


def docstrings(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    return "\n".join(ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds))


def defined(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def test_every_path_exists():
    named = [path for path in paths(TEXT) if "NAME" not in path]
    assert len(named) > 40
    assert [path for path in named if located(path) is None] == []


@pytest.mark.parametrize("row", EQUATIONS, ids=lambda row: row[1])
def test_an_equation_is_in_the_file_that_is_named(row):
    where, _, statement, _ = row
    files = [located(path) for path in paths(statement)]
    said = "\n".join(map(docstrings, files))
    assert numbers(where) <= numbers(said)
    assert set(re.findall(r"III-\w", where)) <= set(re.findall(r"III-\w", said))
    names = [quoted for quoted in QUOTED.findall(statement) if quoted not in paths(statement)]
    assert set(names) <= set.union(*map(defined, files))


def test_every_equation_has_a_row():
    assert set.union(*(numbers(row[0]) for row in EQUATIONS)) == set(range(1, 18))


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_and_its_forms_have_a_row(name):
    statement = OPERATIONS[name].statement
    file = Path(*statement.__module__.split(".")[1:]).with_suffix(".py").as_posix()
    rows = [row for row in EQUATIONS if file in paths(row[2]) and f"`{statement.__name__}`" in row[2]]
    assert rows, f"the table of equations needs a row with {file} `{statement.__name__}`"
    for form in FORMS.get(name, {}).values():
        place = f"kernels/{form.function.__module__.rsplit('.', 1)[-1]}.py"
        assert any(place in paths(row[3]) for row in rows), f"that row needs {place} among its forms"
