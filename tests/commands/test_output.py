"""The results folder replaces what an earlier run wrote, whole or not at all, and nothing else."""

import json
import os
import shutil
from pathlib import Path

import pytest

from launch.output import OutputError, ResultsFolder

METRICS = {"image_AUROC": 0.5}


@pytest.fixture
def results(tmp_path):
    return ResultsFolder(tmp_path / "results", "folder")


def write(results, category="Apple", digest="new", samples=("a", "b"), save=("maps",), text="new"):
    files = {"scores.csv": text.encode()}
    if "maps" in save:
        files |= {f"maps/{sample}.tiff": f"{text} {sample}".encode() for sample in samples}
    common = {"metrics": METRICS, "timings": {}, "warnings": [], "num_samples": len(samples)}
    return results.write_category(category, digest=digest, save=save, files=files, **common)


def content(folder):
    """Every file below a folder, and where every link leads."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def finished(results, category="Apple", digest="new", save=("maps",)):
    return results.finished(category, digest, save) is not None


def test_a_category_is_found_again(results):
    for category in ("Apple", "line1/left", "line1/right", "line1"):
        assert not finished(results, category)
        write(results, category)
        assert finished(results, category)
        assert not finished(results, category, digest="other")
        assert not finished(results, category, save=("images",))
    assert all(finished(results, category) for category in ("Apple", "line1/left", "line1/right", "line1"))
    assert not list(results.path.rglob(".partial*"))


def test_files_of_a_user_stay(results):
    write(results, text="old", digest="old", samples=("a", "c"))
    write(results, "Apple/inner", text="inner")
    before = content(results.path / "Apple" / "inner")
    (results.path / "Apple" / "notes.txt").write_text("mine")
    (results.path / "Apple" / "maps" / "notes.txt").write_text("mine, too")
    results.expect({"Apple": ("a", "b")}, ("maps",))
    write(results)
    assert finished(results)
    assert content(results.path / "Apple" / "inner") == before
    assert set(content(results.path / "Apple")) == {
        *(f"inner/{name}" for name in before),
        *("notes.txt", "maps/notes.txt", "category.json", "scores.csv", "maps/a.tiff", "maps/b.tiff"),
    }
    assert (results.path / "Apple" / "notes.txt").read_text() == "mine"
    assert (results.path / "Apple" / "maps" / "notes.txt").read_text() == "mine, too"
    (results.path / "Apple" / "maps" / "notes.txt").unlink()
    write(results, save=())
    assert not (results.path / "Apple" / "maps").exists()


class Killed(BaseException):
    """No `except` sees it, as none sees a kill; nothing can be done after it, either."""


def kill_after(monkeypatch, steps):
    """Lets so many changes of the disk happen and then none; returns how many were asked for."""
    asked = []

    def limited(change):
        def call(*arguments, **options):
            asked.append(change.__name__)
            if len(asked) > steps:
                raise Killed
            return change(*arguments, **options)

        return call

    for name in ("replace", "rename", "unlink", "rmdir", "mkdir"):
        monkeypatch.setattr(os, name, limited(getattr(os, name)))
    monkeypatch.setattr(shutil, "rmtree", limited(shutil.rmtree))

    def half(path, data):
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        asked.append("write")
        if len(asked) > steps:
            raise Killed
        with path.open("wb") as file:
            file.write(data)

    monkeypatch.setattr(Path, "write_bytes", half)
    monkeypatch.setattr(Path, "write_text", lambda path, text, encoding: half(path, text.encode(encoding)))
    return asked


def is_whole(results, category, digest, samples):
    """Whether all files of a run are there, and the record was the last of them."""
    folder = results.path / category
    want = {"scores.csv": digest, **{f"maps/{sample}.tiff": f"{digest} {sample}" for sample in samples}}
    return (
        all((folder / name).exists() and (folder / name).read_text() == text for name, text in want.items())
        and json.loads((folder / "category.json").read_text())["digest"] == digest
    )


@pytest.mark.parametrize("category", ["Apple", "line1/left"])
@pytest.mark.parametrize("replacing", [False, True])
def test_killed_at_any_step(tmp_path, category, replacing):
    """What is there is finished or counts for nothing, a user's files are there, and the next run succeeds."""
    theirs, seen = {}, set()
    for step in range(100):
        results = ResultsFolder(tmp_path / str(step), "folder")
        if replacing:
            write(results, category, text="old", digest="old", samples=("a", "c"))
            theirs = {"notes.txt": b"mine", "maps/c.txt": b"mine, too"}
            for name, text in theirs.items():
                (results.path / category / name).write_bytes(text)
        with pytest.MonkeyPatch.context() as patch:
            asked = kill_after(patch, step)
            try:
                write(results, category)
                killed = False
            except Killed:
                killed = True
        assert killed == (len(asked) > step)
        again = ResultsFolder(tmp_path / str(step), "folder")
        whole = [
            digest for digest, samples in (("old", "ac"), ("new", "ab")) if is_whole(again, category, digest, samples)
        ]
        assert [digest for digest in ("old", "new") if finished(again, category, digest)] == whole
        seen.update(whole or ["neither"])
        for name, text in theirs.items():
            assert (again.path / category / name).read_bytes() == text
        again.expect({category: ("a", "b")}, ("maps",))
        with again.locked():
            assert not list(again.path.rglob(".partial*"))
            write(again, category)
        assert finished(again, category)
        ours = {"category.json", "scores.csv", "maps/a.tiff", "maps/b.tiff"}
        assert set(content(again.path / category)) == ours | set(theirs)
        assert (again.path / category / "scores.csv").read_bytes() == b"new"
        if not killed:
            break
    assert step > (12 if replacing else 7)
    assert seen == ({"old", "neither", "new"} if replacing else {"neither", "new"})


def user_folder(folder):
    folder.mkdir(parents=True)
    (folder / "precious.txt").write_text("mine")


CLAIM = {"digest": "", "saved": [], "metrics": {}, "num_samples": 1, "files": {"precious.txt": "0", "../x": "0"}}


def plant(results, what):
    """Something of a user's where the folder of Apple goes."""
    place, elsewhere = results.path / "Apple", results.path.parent.parent / "theirs"
    user_folder(elsewhere if what == "a link to a folder" else place)
    record = place / "category.json"
    if what == "a folder with somebody's category.json":
        record.write_text('{"name": "apple"}')
    elif what == "a folder whose record claims what we never write":
        record.write_text(json.dumps(CLAIM))
    elif what == "a folder with a link to a record":
        other = ResultsFolder(elsewhere, "folder")
        write(other)
        record.symlink_to(other.path / "Apple" / "category.json")
    elif what == "a link to a folder":
        place.symlink_to(elsewhere)
    elif what in ("a file", "a broken link"):
        shutil.rmtree(place)
        place.write_text("mine") if what == "a file" else place.symlink_to(elsewhere)


PLANTED = (
    "a folder",
    "a folder with somebody's category.json",
    "a folder whose record claims what we never write",
    "a folder with a link to a record",
    "a link to a folder",
    "a file",
    "a broken link",
)


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("category", ["Apple", "Apple/left"])
def test_what_is_not_ours_is_refused_before_any_work(tmp_path, results, planted, category):
    plant(results, planted)
    before = content(tmp_path)
    below_a_folder = category == "Apple/left" and planted.startswith("a folder")
    if below_a_folder:  # a new folder in somebody's takes nothing away
        results.expect({category: ("a",)})
        assert content(tmp_path) == before
        return
    for refuse in (lambda: results.expect({category: ("a",)}), lambda: write(results, category)):
        with pytest.raises(OutputError) as error:
            refuse()
        assert str(error.value).startswith(f"{results.path / 'Apple'}: ")
        assert "move it away or pass another --output_dir" in str(error.value)
        assert content(tmp_path) == before


def test_single_files_that_are_not_ours(tmp_path, results):
    write(results)
    maps = results.path / "Apple" / "maps"
    (maps / "z.tiff").write_text("mine")
    (maps / "a.tiff").unlink()
    (maps / "a.tiff").symlink_to(tmp_path)
    before = content(tmp_path)
    for names, place in ((("b", "z"), maps / "z.tiff"), (("a",), maps / "a.tiff")):
        with pytest.raises(OutputError, match="is not of an earlier run, so it is not replaced") as error:
            results.expect({"Apple": names}, ("maps",))
        assert str(error.value).startswith(f"{place}: ")
        with pytest.raises(OutputError):
            write(results, samples=names)
    assert content(tmp_path) == before
    results.expect({"Apple": ("b", "c")}, ("maps",))
    write(results, samples=("b", "c"))  # what an earlier run wrote and somebody made a link stays as it is
    assert os.readlink(maps / "a.tiff") == str(tmp_path)
    assert (maps / "z.tiff").read_text() == "mine"


def test_nothing_is_written_or_deleted_through_a_link(tmp_path, results):
    write(results)
    theirs = tmp_path / "theirs"
    (results.path / "Apple" / "maps").rename(theirs)
    (results.path / "Apple" / "maps").symlink_to(theirs)
    before = content(tmp_path)
    for save in ((), ("maps",)):
        with pytest.raises(OutputError, match="Apple/maps: is no folder, and nothing is written through it"):
            results.expect({"Apple": ("a", "b")}, save)
        with pytest.raises(OutputError):
            write(results, save=save)
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["metrics.json", "metrics.csv", "run.json"])
def test_summaries_that_are_not_ours(tmp_path, results, name):
    (results.path / name).write_text('{"loss": 1}')
    with pytest.raises(OutputError, match="is not of an earlier run"):
        results.expect({"Apple": ("a",)})
    assert (results.path / name).read_text() == '{"loss": 1}'
    (results.path / name).unlink()
    run = {"command": [], "dataset": "folder", "config": {}}
    results.write_summary({}, METRICS, metrics_csv="category,image_AUROC\n", run=run, note=None)
    results.expect({"Apple": ("a",)})
    results.remove_summary()
    assert not (results.path / name).exists()


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        (("/abs",), "category '/abs' is absolute"),
        (("../other",), "category '../other' climbs out"),
        (("a", ".partial-x"), "category '.partial-x' has a part"),
        (("run.json",), "run.json: is where the run's summary goes"),
        (("Metrics.csv/x",), "is where the run's summary goes"),
        (("a", "a/maps"), "a/maps: is where maps of the category a goes"),
        (("a/category.json/b", "a"), "is where category.json of the category a goes"),
    ],
)
def test_names_that_lead_nowhere(results, categories, message):
    with pytest.raises(OutputError) as error:
        results.expect(dict.fromkeys(categories, ("x",)))
    assert message in str(error.value)
    assert content(results.path) == {}


@pytest.mark.parametrize("sample", ["../x", "x" * 252, "a\0"])
def test_names_of_samples_that_are_no_files(results, sample):
    results.expect({"Apple": (sample,)})  # of which nothing is saved
    with pytest.raises(OutputError):
        results.expect({"Apple": (sample,)}, ("maps",))


def test_leftovers_are_cleared_away_and_nothing_else(tmp_path, results):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "precious.txt").write_text("mine")
    (results.path / ".partial-foo").write_text("mine")
    (results.path / ".partial-Apple").mkdir()
    (results.path / ".partial-Apple" / "precious.txt").write_text("mine")
    (results.path / f".partial-host~1~{'a' * 8}~{'a' * 8}").symlink_to(tmp_path / "theirs")
    before = content(tmp_path)
    ours = results.path / f".partial-host~1~{'b' * 8}~{'b' * 8}"
    ours.mkdir()
    (ours / "link").symlink_to(tmp_path / "theirs")
    (results.path / f".partial-host~1~{'c' * 8}~{'c' * 8}").write_text("half")
    with results.locked():
        assert content(tmp_path) == before


def test_a_folder_within_the_dataset_is_refused(tmp_path):
    """The default category of a plain folder is the folder's name: its results would go to the pictures."""
    data = tmp_path / "results" / "folder" / "parts"
    data.mkdir(parents=True)
    results = ResultsFolder(tmp_path / "results", "folder", data_folders=[data])
    with pytest.raises(OutputError, match="lies in the dataset, into which nothing is written; pass --output_dir"):
        results.expect({"parts": ("a",)})


def test_a_full_disk_names_the_folder(results, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    write(results, text="old", digest="old")
    before = content(results.path)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError) as error:
        write(results)
    expected = "cannot be written (No space left on device); make room or pass another --output_dir"
    assert str(error.value) == f"{results.path / 'Apple'}: {expected}"
    assert content(results.path) == before
