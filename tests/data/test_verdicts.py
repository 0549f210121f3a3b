"""Verdicts as the report page, an editor or a spreadsheet saves them, and what is refused in a line."""

import pytest

from musc_jax.data import DataError
from musc_jax.data.verdicts import read_verdicts

NAMES = ["000", 'a "b", c', "bad_1", "line\r\nbreak"]


def read(tmp_path, text, names=NAMES, **options):
    path = tmp_path / "verdicts.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_verdicts(path, names, **options)


def test_what_the_page_saves(tmp_path):
    text = 'sample,verdict\r\n000,good\r\n"a ""b"", c",defective\r\n"line\r\nbreak",good\r\n'
    assert read(tmp_path, text) == {"000": 0, 'a "b", c': 1, "line\r\nbreak": 0}


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffsample;verdict;by\n000;OK;me\nbad_1;NG;me\n;;\n",
        "verdict\tsample\n0\t000\n1\tbad_1\n\tline\n",
        "sample,verdict\n000,good\n000,good\nbad_1,defective\n7,good\n",
    ],
    ids=["spreadsheet", "tabs, one open", "twice the same, one left out"],
)
def test_other_ways_to_say_it(tmp_path, text):
    assert read(tmp_path, text, left_out=("7",)) == {"000": 0, "bad_1": 1}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected columns sample and verdict, received none"),
        ("name,verdict\n000,good\n", "expected columns sample and verdict, received name, verdict"),
        ("sample,verdict\n000,perhaps\n", "line 2: expected good or defective, received 'perhaps'"),
        ("sample,verdict\n000\n", "line 2 has not as many cells as the first one"),
        (
            "sample,verdict\n000,good\n0,good\n1,good\n2,bad\n3,bad\n",
            "no sample '0' (line 3), '1' (line 4), '2' (line 5) and 1",
        ),
        ("sample,verdict\n000,good\nbad_1,good\n000,bad\n", "lines 2 and 4 call '000' good and defective"),
        ("sample,verdict\n000,\n", "has no verdict"),
        ('sample,verdict\n"000,good\n', "is no CSV"),
        (b"sample,verdict\n\xff\xfe,good\n", "is not UTF-8"),
    ],
)
def test_what_is_refused_in_a_line(tmp_path, text, problem):
    with pytest.raises(DataError) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 'verdicts.csv'}: ")
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_no_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_verdicts(tmp_path / "none.csv", NAMES)
