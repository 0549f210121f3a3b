"""Names from anybody stay below their folder."""

from pathlib import Path, PureWindowsPath

import pytest

from musc_jax.storage.paths import UnsafeNameError, below, link_between


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty"),
        ("/etc", "is absolute"),
        ("//server/share", "is absolute"),
        ("C:", "is absolute"),
        ("C:parts", "is absolute"),
        ("c:/parts", "is absolute"),
        ("\\parts", "is absolute"),
        ("\\\\server\\share\\x", "is absolute"),
        ("..", "climbs out"),
        ("../other", "climbs out"),
        ("a/../../b", "climbs out"),
        ("a\\..\\..\\b", "climbs out"),
        ("a/..", "climbs out"),
        (".", "has the part '.'"),
        ("./a", "has the part '.'"),
        ("a//b", "has an empty part"),
        ("a/", "has an empty part"),
        ("a/ /b", "has the part ' '"),
        ("a/.. /b", "has the part '.. '"),
        ("...", "has the part '...'"),
        ("a\0b", "holds NUL"),
        ("a\udcff", "is no text"),
        (".partial-x", "begins with '.partial-'"),
        ("a/.Partial-", "begins with '.partial-'"),
        ("a/" + "é" * 128, "more than 255 bytes"),
    ],
)
def test_what_is_refused(name, reason):
    with pytest.raises(UnsafeNameError, match="expected a relative path such as 'parts' or 'line1/left'") as error:
        below(Path("root"), name)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    ["a", "line1/left", "S\u00fc\u00df holz", "a..b", "..a", ".hidden", "a.b/c d", "12:30:05", "x" * 255, "~", "-"],
)
def test_what_is_joined(name):
    assert below(Path("root/in"), name) == Path("root/in", *name.split("/"))
    assert below(Path(), name) == Path(name)
    # On Windows, too, it stays below the root.
    assert not PureWindowsPath(name).anchor
    assert ".." not in PureWindowsPath(name).parts


def test_links_on_the_way(tmp_path):
    (tmp_path / "real" / "inner").mkdir(parents=True)
    root = tmp_path / "root"
    root.symlink_to(tmp_path / "real")
    assert link_between(root, root) is None
    assert link_between(root, root / "inner" / "not there") is None
    (root / "inner" / "link").symlink_to(tmp_path)
    assert link_between(root, root / "inner" / "link") == root / "inner" / "link"
    assert link_between(root, root / "inner" / "link" / "real") == root / "inner" / "link"
    (root / "broken").symlink_to(tmp_path / "nothing")
    assert link_between(root, root / "broken") == root / "broken"
