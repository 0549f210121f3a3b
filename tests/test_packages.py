"""Rules that hold for the packages as wholes: what their names mean, and who imports whom."""

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

# Each imports from those before it, and never the reverse.
ORDER = ("musc_jax", "weights", "launch")
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


def imported(package: str) -> set[str]:
    """The top-level packages that the modules of one import, anywhere in their text."""
    names: set[str] = set()
    for folder in importlib.import_module(package).__path__:
        for file in Path(folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    assert not node.level, f"{file}: imports are absolute"
                    names.add(node.module)
    return {name.split(".")[0] for name in names}


def test_packages_import_each_other_in_one_direction():
    for i, package in enumerate(ORDER):
        found, expected = imported(package) & set(ORDER), set(ORDER[: i + 1])
        assert found <= expected, f"{package} imports {found - expected}"
        assert found >= expected, "each uses all before it, so nothing was overlooked"
