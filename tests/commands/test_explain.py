"""`launch.score --explain`: who voted, in files and in the page, with new scores and with those that are kept."""

import io

import pytest
from PIL import Image
from test_score import HEIGHT, WIDTH, page_content, part, parts, rows, run  # noqa: F401 - fixtures

from launch import explaining, score
from launch.explain_pictures import Ask, from_square, to_square
from launch.explaining import parse
from musc_jax.execution.memory import Plan


@pytest.mark.parametrize(
    ("values", "asks"),
    [
        (["a"], [Ask("a", None)]),
        (["a:1,2"], [Ask("a", (1, 2))]),
        (["a,b:1,2,c:30,40,d"], [Ask("a", None), Ask("b", (1, 2)), Ask("c", (30, 40)), Ask("d", None)]),
        (["a:1,2", "a", "a"], [Ask("a", (1, 2)), Ask("a", None)]),
        (["x, y"], [Ask("x, y", None)]),
        (["x, y:3,4"], [Ask("x, y", (3, 4))]),
        (["p:4,5"], [Ask("p", (4, 5))]),
    ],
)
def test_what_the_flag_holds(values, asks):
    assert parse(values, {"x, y", "a"}) == asks


def forbidden(*args, **options):
    raise AssertionError("scored")


def pictures(folder):
    return {path.name: path.read_bytes() for path in (folder / "caps" / "explain").iterdir()}


def test_who_voted(run, parts):  # noqa: F811
    code, out, err, folder = run(parts, "--save=report")
    assert code == 0, err
    table = rows(folder / "caps" / "scores.csv")
    worst = next(row["sample"] for row in table if row["rank"] == "1")
    content = page_content((folder / "caps" / "report.html").read_text(encoding="utf-8"))
    # Nine samples are fewer than the ten worst.
    assert [len(sample["voters"]) for sample in content["samples"]] == [1] * 9
    assert not (folder / "caps" / "explain").exists()

    other = table[0]["sample"] if table[0]["sample"] != worst else table[1]["sample"]
    flags = (f"--explain={worst},{other}:90,10", f"--explain={other}", "--explain_k=2", "--save=report")
    code, out, err, folder = run(parts, *flags)
    assert code == 0, err
    assert rows(folder / "caps" / "scores.csv") == table, "nothing else has changed"
    found = pictures(folder)
    assert set(found) == {f"{worst}.png", f"{other}@90,10.png", f"{other}.png"}
    for data in found.values():
        assert Image.open(io.BytesIO(data)).format == "PNG"
    lines = [line for line in out.splitlines() if "is matched best by" in line]
    assert [line.split(" at ")[0] for line in lines] == [worst, f"{other}", other]
    assert f"{other} at (90, 10) is" in lines[1]
    assert lines[0].endswith(f"of 8 others: {folder / 'caps' / 'explain' / worst}.png")
    assert len(lines[0].split(" matched best by ")[1].split(", of 8")[0].split(", ")) == 2
    content = page_content((folder / "caps" / "report.html").read_text(encoding="utf-8"))
    assert {len(s["voters"]) for s in content["samples"] if s["name"] == other} == {2}
    # Without it the pictures go again, and the page has them no more.
    _, out, _, folder = run(parts, "--save=maps")
    assert "matched best" not in out
    assert not (folder / "caps" / "explain").exists()


def test_scores_that_are_kept_take_features_and_no_scoring(run, parts, monkeypatch):  # noqa: F811
    code, _, err, folder = run(parts, "--save=maps")
    assert code == 0, err
    name = rows(folder / "caps" / "scores.csv")[2]["sample"]
    with monkeypatch.context() as patched:
        patched.setattr(score, "run_category", forbidden)
        # Features on disk, a few samples at a time.
        patched.setattr(explaining, "plan_for", lambda *args: Plan(True, False, 2, 2, 0, 0, 0))
        code, _, err, folder = run(parts, "--save=maps", f"--explain={name}")
        assert code == 0, err
        assert "what is explained takes features anew" in err
        from_disk = pictures(folder)
        patched.setattr(explaining, "plan_for", forbidden)
        code, _, err, folder = run(parts, "--save=maps", f"--explain={name}")
        assert code == 0, err
        assert pictures(folder) == from_disk, "these are kept, too"
        # More of them than were kept have to be found.
        with pytest.raises(AssertionError, match="scored"):
            run(parts, "--save=maps", f"--explain={name}", "--explain_k=6")
    at_once = run(parts, "--save=maps", f"--explain={name}", f"--cache_dir={folder.parent / 'other'}")
    assert at_once[0] == 0
    assert pictures(folder) == from_disk, "the same whether features are on disk or not"


def test_a_copy_is_explained_as_what_took_part(run, tmp_path):  # noqa: F811
    for i in range(5):
        (tmp_path / "caps").mkdir(exist_ok=True)
        Image.fromarray(part(i, defect=i == 0)).save(tmp_path / "caps" / f"{i}.png")
    Image.fromarray(part(0, defect=True)).save(tmp_path / "caps" / "again.png")
    code, out, err, folder = run(tmp_path / "caps", "--explain=0,again", "--save=maps")
    assert code == 0, err
    one, other = (line for line in out.splitlines() if "matched best" in line)
    assert one.split(" at ")[1].split(":")[0] == other.split(" at ")[1].split(":")[0]
    assert "of 4 others" in one
    assert set(pictures(folder)) == {"0.png", "again.png"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--explain=nobody"], "--explain: no sample 'nobody'; there are 9, such as "),
        (
            ["--explain=shift 1_0:96,3"],
            f"--explain: shift 1_0: (96, 3) is outside of its picture of {WIDTH} x {HEIGHT}",
        ),
        (["--explain=shift 1_0:3,48"], "--explain: shift 1_0: (3, 48) is outside of its picture"),
        (["--explain=shift 1_0:3,4", "--fit=crop"], "is outside of what --fit=crop leaves of its picture"),
        (["--explain_k=0"], "--explain_k: expected at least 1, received 0"),
    ],
)
def test_what_cannot_be_explained_is_said_before_work_starts(run, parts, monkeypatch, flags, said):  # noqa: F811
    monkeypatch.setattr(score, "run_category", forbidden)
    code, out, err, _ = run(parts, *flags)
    assert code == 2
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert said in line


@pytest.mark.parametrize(
    ("fit", "place"),
    [("squash", (0.75, 0.25)), ("pad", (0.75, 0.375)), ("crop", (1.0, 0.25))],
)
def test_a_place_in_the_picture_is_one_in_the_square_that_is_scored(fit, place):
    """(72, 12) of 96 x 48 pixels."""
    assert to_square(72, 12, (48, 96), fit) == place
    assert from_square(*place, (48, 96), fit) == (72, 12)
