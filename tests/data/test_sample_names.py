"""Names of samples can be those of files anywhere, whatever their own files are called."""

import os
import unicodedata
from pathlib import Path

import pytest

from musc_jax.data.sample_names import group_prefixes, safe_name, safe_names
from musc_jax.data.trees import natural, natural_order
from musc_jax.storage.paths import below, readable


@pytest.mark.parametrize(
    ("folders", "prefixes"),
    [
        (["good", "bad"], ["good", "bad"]),
        (["test/good/rgb", "test/cut/rgb"], ["good", "cut"]),
        (["good", "defects/crack", "defects/dent"], ["good", "crack", "dent"]),
        (["a/good/rgb", "b/good/rgb"], ["a", "b"]),
        (["x/a/good/rgb", "x/b/c/rgb", "x/d/rgb"], ["a_good", "b_c", "d"]),
        (["rgb", "cut/rgb"], ["rgb", "cut_rgb"]),
        (["."], ["parts"]),
        ([".", "bad"], ["parts", "bad"]),
        (["/data/good", "../bad"], ["good", "bad"]),
    ],
)
def test_the_part_that_differs_comes_first(folders, prefixes):
    assert group_prefixes(folders, root="parts") == prefixes


ODD = [
    "①", "10²", "a\nb", "a\tb", "con", "CON.x", "lpt1", "a.", "a ", " ", "...", ".hidden", "a:b", 'q"?*<>|', "a\\b",
    "\udcff", "x" * 252, "é" * 150, "日本語" * 60, "x/" * 120 + "y", "A", "a", "Ä", "A\u0308", "d/e_f", "d_e/f", "-rf",
    "\u202ename", "nul.tar.gz", "\u0661", "com¹", "e" * 4400,
]  # fmt: skip


def test_odd_names_become_names():
    names = safe_names(ODD)
    folded = {unicodedata.normalize("NFC", name).casefold() for name in names}
    assert len(folded) == len(ODD)
    for name in names:
        file = f"{name}.tiff"
        assert below(Path(), file).name == file
        assert len(file.encode()) <= 143
        assert not set(name) & set('\\/:*?"<>|')
        assert name.isprintable()
        assert name == name.strip(" ").rstrip(".")
        assert name.split(".")[0].casefold() not in ("con", "nul", "lpt1", "com¹")
    # The same again, in any order but for who of two equal ones comes first.
    assert safe_names(ODD) == names


def test_usual_names_stay_as_they_are():
    usual = ["good_0", "my parts é", "日本", "crack/deep/0", "1.5 mm", "a-b_c", "IMG_0001 (2)"]
    assert safe_names(usual) == [name.replace("/", "_") for name in usual]
    # An odd one never takes a usual one's name, whichever comes first.
    assert safe_names(["a?", "a_"])[1] == "a_"
    assert safe_names(["a_"]) == ["a_"]


def test_a_locale_that_cannot_write_them(monkeypatch):
    """What is no UTF-8 locale gives a CJK name as bytes without meaning, and cannot write one as text."""
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "ascii")
    assert safe_name(os.fsencode("日本").decode("ascii", "surrogateescape")) == "u65e5u672c"
    assert safe_name("parts é") == "parts u00e9"


def test_readable_paths():
    assert readable("a\udcffb") == "a\\xffb"
    assert readable("a\nb") == "a\\nb"
    assert readable("日本 é") == "日本 é"
    readable("\ud83d").encode()


def test_numbers_are_sorted_by_value_and_odd_digits_are_letters():
    assert sorted(["10", "9", "①", "10²", "1", "01", "\u0661"], key=natural_order) == [
        "01", "1", "\u0661", "9", "10", "10²", "①",
    ]  # fmt: skip
    assert natural("10²") == [(0, 10), (1, "²")]
