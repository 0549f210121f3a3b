"""Rules that hold for the packages as wholes: what their names mean, and who imports whom."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

# Each imports from those before it, and never the reverse.
ORDER = ("musc_jax", "weights", "launch")
# The parts of `musc_jax` that are no equation of the method.
LAYERS = {
    "kernels", "execution", "models", "data", "storage", "report", "config", "pipeline", "predictions", "given",
    "own_parts", "copies",
}  # fmt: skip
# Exports that are modules on purpose.
MODULES = {"musc_jax.metrics"}


def packages() -> list[str]:
    found = list(ORDER)
    for name in ORDER:
        inner = pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}.")
        found += [module.name for module in inner if module.ispkg]
    return found


def submodules(package: str) -> list[str]:
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return [f"{package}.{module.name}" for module in found if module.name != "__main__"]


@pytest.mark.parametrize("package", packages())
def test_an_export_stays_what_it_is_whatever_is_imported(package):
    """Importing a submodule puts it into its package under its name, over whatever was there."""
    inner = submodules(package)
    for name in inner:
        importlib.import_module(name)
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", ()):
        path = f"{package}.{name}"
        assert isinstance(getattr(module, name), ModuleType) == (path in MODULES), path
        # `import package.name as alias` gives the export and not the submodule, where both are called so.
        assert path not in inner or path in MODULES, f"{path} is an export and a submodule"


def sources(package: str) -> Iterator[tuple[Path, ast.Module]]:
    """The modules of a package, by their paths within it."""
    for folder in importlib.import_module(package).__path__:
        for file in sorted(Path(folder).rglob("*.py")):
            yield file.relative_to(folder), ast.parse(file.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[str]:
    """What a module imports, anywhere in its text: modules, and names out of modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_packages_import_each_other_in_one_direction():
    for i, package in enumerate(ORDER):
        found = {name.split(".")[0] for _, tree in sources(package) for name in imports(tree)} & set(ORDER)
        expected = set(ORDER[: i + 1])
        assert found <= expected, f"{package} imports {found - expected}"
        assert found >= expected, "each uses all before it, so nothing was overlooked"


def parts_of(package: str) -> dict[str, set[str]]:
    """Which part of a package imports which others; a part is a module or package directly in it."""
    found: dict[str, set[str]] = {}
    for path, tree in sources(package):
        part = path.parts[0].removesuffix(".py")
        names = [name.split(".") for name in imports(tree)]
        used = {name[1] for name in names if name[0] == package and len(name) > 1}
        found.setdefault(part, set()).update(used - {part})
    del found["__init__"]
    return found


def misplaced(parts: dict[str, set[str]]) -> set[str]:
    """Imports within `musc_jax` that lead the wrong way, as "importer > imported"."""
    private = {part for part in parts if part.startswith("_")}
    method = parts.keys() - private - LAYERS
    above = {"execution", "data", "report", "storage", "config", "pipeline", "given"}
    may = dict.fromkeys(("storage", "kernels"), private)
    may_not = dict.fromkeys(method, above) | {"models": above, "data": above - {"data", "storage"}}
    may_not |= {"execution": {"report", "pipeline", "given"}, "pipeline": {"given"}}
    may_not |= {"config": {"execution", "data", "report", "pipeline", "given"}}
    found = {(part, other) for part, others in parts.items() for other in others & parts.keys()}
    return {
        f"{part} > {other}"
        for part, other in found
        if other not in may.get(part, parts) or other in may_not.get(part, ())
    }


def circle(parts: dict[str, set[str]]) -> list[str]:
    """Parts that import each other in a circle; none if there is no circle."""
    left = {part: others & parts.keys() for part, others in parts.items()}
    while free := [part for part, others in left.items() if not others & left.keys()]:
        for part in free:
            del left[part]
    return sorted(left)


def test_parts_of_the_library_import_each_other_in_one_direction():
    parts = parts_of("musc_jax")
    assert parts.keys() >= LAYERS, "none of them was renamed"
    assert misplaced(parts) == set()
    assert circle(parts) == []


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("storage", "data"),
        ("data", "execution"),
        ("mutual", "execution"),
        ("maps", "data"),
        ("metrics", "report"),
        ("kernels", "mutual"),
        ("models", "execution"),
        ("config", "data"),
        ("pipeline", "given"),
    ],
)
def test_an_import_in_the_wrong_direction_is_noticed(part, other):
    parts = parts_of("musc_jax")
    parts[part].add(other)
    assert misplaced(parts) == {f"{part} > {other}"}


def test_a_circle_is_noticed():
    parts = {"grouping": {"neighbors"}, "neighbors": {"_arrays"}, "_arrays": set()}
    assert circle(parts) == []
    parts["neighbors"].add("grouping")
    assert circle(parts) == ["grouping", "neighbors"]


@pytest.mark.parametrize("package", ORDER)
def test_types_say_what_is_there(package):
    """Nobody asserts, for the type checker's sake, that something is not None."""
    for file, tree in sources(package):
        asserted = {ast.unparse(node.test) for node in ast.walk(tree) if isinstance(node, ast.Assert)}
        assert not {text for text in asserted if text.endswith(" is not None")}, file
