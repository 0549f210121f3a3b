"""A dataset that is one file and nothing else: opened, scored, listed, checked, documented."""

import json
import re

import pytest
from dataset_trees import blob, picture, save
from dropped_modules import second_folder
from readme_parts import generate

from launch import eval as command
from launch import fetch
from launch.own_flags import parse
from musc_jax.data import DATASETS, DataError, datasets, open_dataset

MODULE = '''
"""Bottle caps: DIR/<colour>/test/{plain,bent}_<number>.png, DIR/<colour>/masks/bent_<number>.png."""

from musc_jax.data.dataset import Candidate
from musc_jax.data.image_sample import Picture
from musc_jax.data.spec import DatasetSpec, Expected, Layout, Source
from musc_jax.data.trees import Found, add_candidates, find_categories, is_folder, pictures, root_of

SOURCE = Source(
    title="Bottle Caps",
    home="https://caps.example",
    licence="of our own",
    categories={"blue": Expected(3, 2, (40, 40)), "red": Expected(3, 2, (40, 40))},
    layout=Layout("test", frozenset({"test", "masks"}), scored=("test", "masks"), masks=frozenset({"masks"})),
    example="`red/test/plain_0.png`, ...",
    recipe=("ask for it",),
    wrappers=("caps",),
)


def find_caps(request):
    root, found = root_of("caps", request.data_dir, layout="<colour>/test/plain_0.png", home=SOURCE.home), Found()
    for category, folder in find_categories(
        root,
        request.categories,
        found,
        wrappers=SOURCE.wrappers,
        is_category=lambda folder: is_folder(folder / "test"),
        layout="<colour>/test/plain_0.png",
        home=SOURCE.home,
    ).items():
        images, masks = (pictures(folder / name, found.warnings.append) for name in ("test", "masks"))
        samples = [
            Picture(stem, image, int(stem.startswith("bent")), masks.get(stem), str(folder / "masks" / f"{stem}.png"))
            for stem, image in images.items()
        ]
        add_candidates(found, category, folder, [Candidate.of(sample) for sample in samples])
    return found


DATASET = DatasetSpec("caps", find_caps, ("rgb",), SOURCE, v1_windows=(2, 3), default_weights="random")
'''


@pytest.fixture(scope="module")
def caps(tmp_path_factory):
    """The module, found as if it lay beside the others; and its data."""
    package, data = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("caps")
    (package / "caps.py").write_text(MODULE)
    for shift, colour in enumerate(("blue", "red")):
        for i in range(5):
            name = f"{'plain' if i < 3 else 'bent'}_{i}.png"
            save(data / colour / "test" / name, picture(10 * shift + i))
            if i >= 3:
                save(data / colour / "masks" / name, blob())
    before, known = dict(DATASETS), command.options.flags.FLAGS["dataset"].parser.enum_values
    with second_folder(package):
        table = datasets.find_datasets(datasets.__path__)
    try:
        known.append("caps")  # flags are defined before
        DATASETS.clear()
        DATASETS.update(table)
        yield data
    finally:
        known.remove("caps")
        DATASETS.clear()
        DATASETS.update(before)


def test_opened(caps, tmp_path):
    dataset = open_dataset("caps", data_dir=caps, cache_dir=tmp_path, modality="rgb")
    assert dataset.categories == ("blue", "red")
    assert dataset.names("red") == ("bent_3", "bent_4", "plain_0", "plain_1", "plain_2")
    assert [sample.gt_label for sample in dataset.samples("red", size=16)] == [1, 1, 0, 0, 0]
    with pytest.raises(DataError, match="caps has pictures only"):
        open_dataset("caps", data_dir=caps, cache_dir=tmp_path, modality="points")


def test_scored(caps, tmp_path, image_weights, capsys):
    given = ["--dataset=caps", f"--data_dir={caps}", f"--output_dir={tmp_path}", f"--cache_dir={tmp_path / 'cache'}"]
    given += [f"--weights_rgb={image_weights}", "--variant=v1", "--blocks=0,1,2", "--image_size=32", "--categories=red"]
    assert command.main(["eval", *given]) == 0, capsys.readouterr().err
    run = json.loads((tmp_path / "caps" / "run.json").read_text())
    assert (run["dataset"], run["config"]["modality"]) == ("caps", "rgb")
    assert run["config"]["rescoring"]["windows"] == [2, 3]
    metrics = json.loads((tmp_path / "caps" / "metrics.json").read_text())["categories"]
    assert metrics["red"]["pixel_PRO"] is not None


def test_its_backbones_are_random_unless_told_otherwise(caps):
    parse(["eval", "--dataset=caps"], command.options.flags)
    assert command.options.weight_sources() == ("random", None)


def test_listed_and_checked(caps, tmp_path, capsys):
    fetch.show_list()
    out = capsys.readouterr().out
    assert "caps        2           6          4               by hand   of our own" in out
    assert "\ncaps: https://caps.example\n" in out
    order = fetch.Order(dataset="caps", data_dir=caps, check=True)
    fetch.carry_out(order)
    assert capsys.readouterr().out == f"{caps}: all test samples of caps are there (2 categories)\n"
    mask, aside = caps / "red" / "masks" / "bent_3.png", tmp_path / "bent_3.png"
    mask.rename(aside)
    (caps / "red" / "masks" / "plain_0.png").write_bytes(aside.read_bytes())
    try:
        with pytest.raises(fetch.FetchError, match="1 problem, caps is not as published"):
            fetch.carry_out(order)
    finally:
        aside.rename(mask)
        (caps / "red" / "masks" / "plain_0.png").unlink()
    again = "copy it again from the dataset's archive"
    assert capsys.readouterr().out.splitlines() == [
        f"{mask}: is missing, the mask of {caps / 'red' / 'test' / 'bent_3.png'}; {again}",
        f"note: {mask.with_name('plain_0.png')}: is a mask without an image; not used",
    ]


def test_got_by_hand(caps, tmp_path):
    order = fetch.Order(dataset="caps", data_dir=tmp_path / "new", accept_license=True)
    with pytest.raises(fetch.FetchError, match="caps cannot be fetched by a program; by hand:\n  ask for it"):
        fetch.carry_out(order)


def test_documented(caps):
    assert "\n| `caps` | images | by hand | `red/test/plain_0.png`, ... |" in generate.datasets()
    rows = re.findall(r"^\| `--dataset` .*$", generate.flags(), flags=re.M)
    assert any("`caps`" in row for row in rows)
