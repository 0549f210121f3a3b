"""`launch.score --verdicts`: what a person has said is listed, decides, and defective samples score no others."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image
from test_score import page_content, part, rows, run  # noqa: F401 - a fixture

from launch import score_verdicts
from musc_jax.config import ConfigError
from musc_jax.data import DataError
from musc_jax.data.account import Account

DEFECTS = ("6", "7", "8")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Nine parts, three with one and the same defect."""
    root = tmp_path_factory.mktemp("parts") / "caps"
    root.mkdir()
    for i in range(9):
        Image.fromarray(part(i, defect=str(i) in DEFECTS)).save(root / f"{i}.png")
    return root


def peaks(folder):
    return {row["sample"]: float(row["max_score"]) for row in rows(folder / "scores.csv")}


def test_what_is_known_lifts_what_is_not(run, parts, tmp_path):  # noqa: F811
    code, _, err, results = run(parts, "--save=report", "--interval=0.1")
    assert code == 0, err
    folder = results / "caps"
    before, names = peaks(folder), [row["verdict"] for row in rows(folder / "scores.csv")]
    assert set(names) == {""}
    assert max(before[name] for name in DEFECTS) < 1.5 * max(before[str(i)] for i in range(6))
    # Two are known, so that the third one is scored by good ones only. It is what now scores the two.
    file = tmp_path / "verdicts.csv"
    file.write_text("sample,verdict\r\n6,defective\r\n7,defective\r\n", encoding="utf-8")
    code, out, err, _ = run(parts, "--save=report", "--interval=0.1", f"--verdicts={file}")
    assert code == 0, err
    assert "caps: verdicts: 0 good, 2 defective; the latter are scored and score no others" in err
    assert "taken from the cache" not in err
    after = peaks(folder)
    assert after["8"] > 2 * max(after[str(i)] for i in range(6))
    assert after["8"] > 2 * before["8"]
    assert "decided by gap" in out
    # All are known, and decide.
    rest = "8,defective\r\n0,good\r\n3,good\r\n"
    file.write_text(file.read_text(encoding="utf-8").strip() + "\r\n" + rest, encoding="utf-8")
    code, out, err, _ = run(parts, "--save=report", "--interval=0.1", f"--verdicts={file}")
    assert code == 0, err
    after = peaks(folder)
    assert min(after[name] for name in DEFECTS) > 2 * max(after[str(i)] for i in range(6))
    assert "decided by verdicts: 3 called defective" in out
    table = {row["sample"]: row for row in rows(folder / "scores.csv")}
    said = dict.fromkeys(DEFECTS, "defective") | {"0": "good", "3": "good"}
    assert {name: row["verdict"] for name, row in table.items() if row["verdict"]} == said
    assert {name for name, row in table.items() if row["pred_label"] == "1"} == set(DEFECTS)
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert {line["sample"]: line["verdict"] for line in lines if line["verdict"]} == said
    page = page_content((folder / "report.html").read_text(encoding="utf-8"))
    assert {sample["name"]: sample["verdict"] for sample in page["samples"] if sample["verdict"]} == said
    assert page["decisions"][0]["rule"] == "verdicts"
    told = json.loads((results / "run.json").read_text())
    assert told["inputs"]["caps"]["verdicts"] == {
        "file": str(file), "good": 2, "defective": 3, "score_no_others": list(DEFECTS),
    }  # fmt: skip
    assert told["flags"]["verdicts"] == str(file)
    # Another rule decides on the same scores.
    code, out, err, _ = run(parts, "--save=report", "--interval=0.1", f"--verdicts={file}", "--threshold=rate:0.12")
    assert code == 0, err
    assert "taken from the cache" in err
    assert "decided by rate:0.12: 1 called defective" in out


NAMES = tuple("abcdef")


@pytest.fixture
def judge(tmp_path, monkeypatch):
    """Calls `verdicts_on` with what was said, as the command's flags would."""

    def call(said, *, rule=None, categories=("caps",), copies=(), carried=None):
        file = tmp_path / "verdicts.csv"
        file.write_text("sample,verdict\n" + "".join(f"{name},{word}\n" for name, word in said), encoding="utf-8")
        flags = score_verdicts.score_flags
        monkeypatch.setattr(flags, "VERDICTS", SimpleNamespace(value=str(file)))
        monkeypatch.setattr(flags, "THRESHOLD", SimpleNamespace(value=rule or "gap", present=int(rule is not None)))
        monkeypatch.setattr(flags, "THRESHOLD_FROM", SimpleNamespace(value=carried))
        dataset = SimpleNamespace(
            categories=categories,
            names=lambda _: NAMES,
            skipped={"caps": ()},
            copies=lambda _: copies,
            copies_count_once=True,
            accounts={"caps": Account()},
        )
        return score_verdicts.verdicts_on(dataset)

    return call


def test_who_is_silent_and_what_decides(judge):
    both = [("a", "good"), ("b", "bad")]
    assert judge(both) == ({"a": 0, "b": 1}, {"b"}, "verdicts")
    assert judge(both, rule="gap").rule == judge(both, carried="run").rule == judge(both[1:]).rule == "gap"
    assert judge([("a", "good")]) == ({"a": 0}, set(), "gap")
    # Of copies the first one takes part, whichever was looked at.
    assert judge([("c", "bad")], copies=((1, 2, 4),)).silent == {"b"}


def test_few_that_score_are_said(judge, capsys):
    judge([(name, "bad") for name in "abc"])
    assert "only 3 samples are not called defective, and only these score others" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "options", "error", "problem"),
    [
        ([("z", "good")], {}, DataError, "there is no sample 'z' (line 2)"),
        ([("a", "good"), ("a", "bad")], {}, DataError, "lines 2 and 3 call 'a' good and defective"),
        ([("a", "good")], {"rule": "verdicts"}, ConfigError, "--threshold=verdicts: expected both good and defective"),
        ([("a", "good")], {"categories": ("x", "y")}, ConfigError, "on one product, received 2"),
        ([(name, "bad") for name in "abcde"], {}, ConfigError, "1 of 6 samples are not called defective"),
        (
            [("a", "good"), ("c", "bad")],
            {"copies": ((0, 2),)},
            ConfigError,
            "a is called good and c defective, but they",
        ),
    ],
)
def test_what_cannot_be_taken_up_is_refused_in_a_line(judge, said, options, error, problem):
    with pytest.raises(error) as refused:
        judge(said, **options)
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


def test_verdicts_decide_where_they_are(run, parts):  # noqa: F811
    code, _, err, _ = run(parts, "--threshold=verdicts")
    assert code == 2
    assert "--threshold=verdicts: needs them; pass --verdicts=FILE" in err
    code, _, err, _ = run(parts, "--verdicts=nowhere.csv")
    assert code == 2
    assert "nowhere.csv: cannot be read" in err
