"""Tables of the paper as they are shown, and figures as they are drawn."""

import io

import numpy as np
import pytest
from PIL import Image

from musc_jax.report.reproduction import Outcome, Row, Run, Table, as_latex, as_markdown, declared_tables, draw_figure
from musc_jax.report.reproduction import shown_table as shown

RUN = Run("mvtec3d", "rgb", "dino_vitb8")


@pytest.mark.parametrize("name", ["10", "11"])
def test_a_figure_shows_every_metric_that_came_out(name):
    pytest.importorskip("matplotlib")
    table = declared_tables()[name]
    empty = {row.run: Outcome(missing="no data") for row in table.rows}
    rng = np.random.default_rng(0)
    full = {run: Outcome(dict.fromkeys(table.metrics, float(rng.uniform(0, 100)))) for run in empty}
    pictures = [np.asarray(Image.open(io.BytesIO(draw_figure(shown(table, o)))).convert("L")) for o in (empty, full)]
    dark = [(picture < 200).mean() for picture in pictures]
    assert dark[1] > dark[0] + 0.002


def test_letters_that_mean_something_elsewhere_are_escaped():
    table = Table("a & b_c", ("setting",), ("image_AP",), (Row(("w/o λ | 50%",), RUN, {"image_AP": 50.04}),))
    made = shown(table, {RUN: Outcome({"image_AP": 51.0})})
    assert r"w/o $\lambda$ | 50\% & 51.00 (50.0) \\" in as_latex(made)
    assert r"\caption{a \& b\_c." in as_latex(made)
    assert "| w/o λ \\| 50% | 51.00 (50.0) |" in as_markdown(made)
