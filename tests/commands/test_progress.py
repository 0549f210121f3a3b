"""What a progress bar prints where there is no terminal, and how seldom."""

import io

import pytest

from launch.progress import ProgressBar


@pytest.fixture
def printed(monkeypatch):
    """The lines that a bar prints when it is told (seconds, stage, done, total) one after the other."""

    def call(*reports, **options):
        out, now = io.StringIO(), [0.0]
        monkeypatch.setattr("sys.stderr", out)
        bar = ProgressBar(clock=lambda: now[0], **options)
        for seconds, *report in reports:
            now[0] = seconds
            bar(*report)
        bar.close()
        return out.getvalue().splitlines()

    return call


def test_a_small_download_is_one_line(printed):
    """However often it is told of, and whether or not that is after its end."""
    parts = [(0.01 * i, "model", 100 * i, 5000) for i in range(51)]
    assert printed(*parts, (9, "model", 5000, 5000), label="dino: ", in_bytes=True) == [
        "dino: model: 5.0 of 5.0 kB in 0.5 s"
    ]


def test_a_long_stage_says_every_quarter_of_a_minute_how_long_is_left(printed):
    assert printed(*((i, "features", i, 50) for i in range(1, 51))) == [
        "features: 15 of 50, 35 s left",
        "features: 30 of 50, 20 s left",
        "features: 45 of 50, 5 s left",
        "features: 50 of 50 in 50.0 s",
    ]


def test_what_does_not_move_is_said_once(printed):
    """And says nothing about how long is left as long as nothing is done."""
    stuck = [(i, "model", 0, 450_000_000) for i in range(60)]
    assert printed(*stuck, in_bytes=True) == ["model: 0 of 450 MB"]


def test_stages_follow_each_other(printed):
    """One begins where the one before ended; one that begins anew is told of again when it is done."""
    reports = [(2, "features", 1, 1), (5, "maps", 1, 2), (6, "maps", 2, 2), (8, "maps", 1, 2), (9, "maps", 2, 2)]
    assert printed(*reports) == [
        "features: 1 of 1 in 2.0 s",
        "maps: 2 of 2 in 4.0 s",
        "maps: 2 of 2 in 7.0 s",
    ]


@pytest.mark.parametrize(
    ("total", "line"),
    [
        (350, "175 of 350 bytes"),
        (1_000, "0.5 of 1.0 kB"),
        (350_000, "175 of 350 kB"),
        (3_400_000, "1.7 of 3.4 MB"),
        (346_000_000, "173 of 346 MB"),
    ],
)
def test_sizes_are_readable(printed, total, line):
    assert printed((15, "model", total // 2, total), in_bytes=True) == [f"model: {line}, 15 s left"]


def test_a_total_that_nobody_knows(printed):
    assert printed((15, "model", 2_500_000, None), (16, "model", 2_600_000, None), in_bytes=True) == [
        "model: 2.5 MB so far"
    ]
    assert printed((20, "features", 3, None)) == ["features: 3 so far"]


def test_a_terminal_gets_a_bar_that_is_taken_away(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    bar = ProgressBar("dino: ", in_bytes=True)
    bar("model", 100, 2_000_000)
    bar("model", 2_000_000, 2_000_000)
    bar.close()
    assert "dino: model" in terminal.getvalue()
    assert "/2.00M" in terminal.getvalue()
    assert "\n" not in terminal.getvalue()
