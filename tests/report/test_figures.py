"""Figures: the right numbers in them, small files whose bytes depend on the results alone, harmless text."""

from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from divacli.errors import DataError
from divacli.report.figures import classes, derivatives, histories
from divacli.report.figures.drawing import GRID, INK, SERIES, page_svg, rendered
from divacli.report.terminal.plain import plain

HOSTILE = [
    "<script>alert(1)</script>",
    "$x_$ & <b>",
    "quote \" and '",
    "two\nlines",
    "עברית",
    "🐶 dog",
    "#0072b2",
    "url(#a)",
    "\x1b[31m\x00",
    "]]>",
]


def scores(n: int = 400, classes: int = 8, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Scores with heavy tails, and which labels are wrong."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < 0.1
    table = pd.DataFrame(
        {
            "label": [f"class {i}" for i in rng.integers(0, classes, n)],
            "derivative": 1e-3 * rng.standard_t(1.5, n) + 0.03 * wrong,
            "loo_loss": rng.gamma(1, 0.2, n) + wrong,
            "mislabel_probability": np.where(wrong, 0.9, 0.1),
            "suggested_label": [f"class {i}" for i in rng.integers(0, classes, n)],
        }
    )
    return table, wrong


def harm(values: list[str], by: str = "annotator") -> pd.DataFrame:
    """As the format gives it: all text."""
    n = len(values)
    return pd.DataFrame(
        {
            "by": by,
            "value": values,
            "n_samples": "10",
            "derivative": [str(3 - i) for i in range(n)],
            "loss_change_exact": [str(i - 3.5) if i % 2 else "" for i in range(n)],
        }
    )


SUMMARY = {
    "ridge": 1.0,
    "ridge_path": {"ridge": [0.1, 1.0, 10.0], "loss": [0.5, 0.4, 0.6]},
}
HISTORY = pd.DataFrame(
    {"n_selected": ["0", "10"], "loss": ["0.5", "0.25"], "error": ["0.2", "0.125"], "batch": ["0", "1"]}
)
TRAINING = pd.DataFrame(
    {
        "step": [0, 10],
        "train_loss": [None, 0.5],
        "kfold_loss": [0.9, 0.7],
        "loo_error": [0.2, 0.1],
        "test_error": [None, None],
    }
)
REWEIGHTING = {
    "loss": "cross-entropy",
    "sizes": [0.1],
    "history": [{"step": i, "loss": 0.5 - 0.1 * i} for i in range(2)],
    "trials": [
        {"step": step, "size": size, "gain": size - step, "gain_error": 0.1}
        for step in (1, 2, 3)
        for size in (0.1, 0.2)
    ],
}


def every_figure():
    table, wrong = scores()
    return {
        "histogram": derivatives.derivative_histogram(table, wrong),
        "loss": derivatives.derivative_against_loss(table, wrong),
        "classes": classes.class_bars(table),
        "groups": classes.group_bars(harm(["a", "b"]), "annotator"),
        "confusions": classes.confusions(table),
        "ridge": histories.ridge_path(SUMMARY),
        "choice": histories.choice_curve(HISTORY),
        "steps": histories.steps_curve(REWEIGHTING),
        "training": histories.training_curve(TRAINING),
    }


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).findall(".//{*}text")]


def test_every_sample_is_in_one_bin_of_the_histogram_and_zero_is_an_edge():
    table, wrong = scores(5000)
    everything, flips = derivatives.derivative_histogram(table, wrong).axes[0].patches
    counts, edges, _ = everything.get_data()
    assert counts.sum() == 5000
    assert flips.get_data().values.sum() == wrong.sum()
    assert (flips.get_data().values <= counts).all()
    assert counts[edges[:-1] >= 0].sum() == pytest.approx((table["derivative"] >= 0).sum())
    assert counts[edges[1:] <= 0].sum() == (table["derivative"] < 0).sum()


def test_the_tails_are_cut_nowhere_and_do_not_crush_the_rest():
    table, _ = scores(5000)
    table.loc[0, "derivative"] = 1e6
    [everything] = derivatives.derivative_histogram(table).axes[0].patches
    counts, edges, _ = everything.get_data()
    assert counts[-1] == 1
    assert edges[-1] >= 1e6
    assert counts.max() < 2500


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, 1.0], [-1e-12, 1e9], [0.0, -3.0], [2.0, np.nan]])
def test_any_values_have_a_histogram(values):
    table = pd.DataFrame({"derivative": values, "loo_loss": np.abs(values)})
    [everything] = derivatives.derivative_histogram(table).axes[0].patches
    assert everything.get_data().values.sum() == np.isfinite(values).sum()
    rendered(derivatives.derivative_against_loss(table), "svg")


def test_few_samples_are_points_and_many_are_cells():
    table, wrong = scores(300)
    few = derivatives.derivative_against_loss(table, wrong).axes[0]
    assert sum(len(line.get_xdata()) for line in few.lines[:2]) == 300
    assert not few.patches
    table, wrong = scores(20_000)
    many = derivatives.derivative_against_loss(table, wrong).axes[0]
    assert sum(len(line.get_xdata()) for line in many.lines[:2]) < 300
    cells = sum(len(patch.get_path().vertices) // 5 for patch in many.patches)
    assert 50 < cells < 900
    colours = {patch.get_facecolor()[:3] for patch in many.patches}
    assert len(colours) == 2, "cells with mostly wrong labels have their colour"


def test_a_hundred_thousand_samples_are_a_small_file():
    table, wrong = scores(100_000)
    for figure in (
        derivatives.derivative_against_loss(table, wrong),
        derivatives.derivative_histogram(table, wrong),
        classes.class_bars(table),
    ):
        assert len(rendered(figure, "svg")) < 150_000
        assert len(page_svg(figure, "a-")) < 150_000


def test_the_worst_cloud_is_a_small_file_too():
    rng = np.random.default_rng(0)
    for n in (600, 1500, 100_000):
        table = pd.DataFrame({"derivative": rng.uniform(-1, 1, n), "loo_loss": rng.uniform(0, 1, n)})
        assert len(rendered(derivatives.derivative_against_loss(table, rng.random(n) < 0.5), "svg")) < 150_000


def test_bars_are_shares_of_each_class_the_largest_first():
    table = pd.DataFrame(
        {
            "label": ["a"] * 4 + ["b"] * 2,
            "derivative": [1.0, -1, -1, -1, 1, 1],
            "mislabel_probability": [0.9, 0.9, 0.1, 0.1, 0.5, 0.6],
        }
    )
    panel = classes.class_bars(table).axes[0]
    widths = [bar.get_width() for bar in panel.patches]
    assert widths == [100, 25, 50, 50]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["b (2)", "a (4)"]


def test_a_plot_says_how_many_classes_it_leaves_out():
    table, _ = scores(3000, classes=200)
    figure = classes.class_bars(table)
    assert len(figure.axes[0].patches) == 60
    assert "30 of 200 classes; 170 left out" in "".join(texts(page_svg(figure, "")))
    assert "left out" not in "".join(texts(page_svg(classes.class_bars(scores()[0]), "")))


def test_sums_stand_beside_exact_changes_and_the_largest_are_shown():
    figure = classes.group_bars(harm(["ann", "ben", "", "dora"]), "annotator")
    panel = figure.axes[0]
    assert [bar.get_width() for bar in panel.patches] == [3, 2, 1, 0]
    exact = panel.lines[0].get_xdata()
    assert exact[1::2] == pytest.approx([2.5, 0.5])
    assert np.isnan(exact[::2]).all()
    assert [label.get_text() for label in panel.get_yticklabels()][2] == "(empty) (10)"
    many = classes.group_bars(harm([f"v{i}" for i in range(100)]), "annotator")
    assert len(many.axes[0].patches) == 30
    with pytest.raises(DataError, match="no sums by source"):
        classes.group_bars(harm(["a"]), "source")


def test_confusions_count_labels_called_wrong_only():
    table = pd.DataFrame(
        {
            "label": ["a", "a", "b", "a"],
            "suggested_label": ["b", "b", "c", "c"],
            "mislabel_probability": [0.9, 0.8, 0.7, 0.5],
        }
    )
    figure = classes.confusions(table)
    panel = figure.axes[0]
    names = [label.get_text() for label in panel.get_xticklabels()]
    cells = {
        (names[round(text.get_position()[1])], names[round(text.get_position()[0])]): text.get_text()
        for text in panel.texts
    }
    assert cells == {("a", "b"): "2", ("b", "c"): "1"}
    none = classes.confusions(table.assign(mislabel_probability=0.1))
    assert "no label is called wrong" in texts(page_svg(none, ""))
    many = classes.confusions(scores(3000, classes=100)[0])
    assert len(many.axes[0].get_xticks()) == 20


def test_the_path_marks_the_chosen_ridge():
    panel = histories.ridge_path(SUMMARY).axes[0]
    path, chosen = panel.lines
    assert path.get_xdata().tolist() == [0.1, 1.0, 10.0]
    assert chosen.get_xdata()[0] == 1.0
    with pytest.raises(DataError, match="ridge was given"):
        histories.ridge_path(SUMMARY | {"ridge_path": None})


def test_curves_show_what_was_written():
    loss, error = histories.choice_curve(HISTORY).axes
    assert loss.lines[0].get_ydata().tolist() == [0.5, 0.25]
    assert error.lines[0].get_ydata().tolist() == [20.0, 12.5]
    losses, errors = histories.training_curve(TRAINING).axes
    assert [line.get_ydata().tolist() for line in losses.lines] == [[0.5], [0.9, 0.7]]
    assert [line.get_ydata().tolist() for line in errors.lines] == [[20.0, 10.0]]
    walk, trials = histories.steps_curve(REWEIGHTING).axes
    assert walk.lines[0].get_ydata().tolist() == [0.5, 0.4]
    rings = [line for line in trials.lines if line.get_markersize() == 9]
    assert [list(ring.get_xdata()) for ring in rings] == [[0.1], [], []]
    assert len(histories.steps_curve(REWEIGHTING | {"trials": None}).axes) == 1


@pytest.mark.parametrize("format", ["svg", "png", "pdf"])
def test_bytes_depend_on_the_results_alone(format):
    # Each of them as SVG, where names are drawn at random; of the others what they hold beside the drawing.
    names = list(every_figure()) if format == "svg" else ["ridge", "confusions"]
    made, anew = every_figure(), every_figure()
    first = {name: rendered(made[name], format) for name in names}
    assert first == {name: rendered(anew[name], format) for name in names}
    assert rendered(made["confusions"], format) == first["confusions"]
    assert all(b"20" + str(year).encode() + b"-" not in first["ridge"] for year in range(24, 60))
    head = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[format]
    assert all(content.startswith(head) for content in first.values())


def test_a_page_holds_many_figures_in_its_own_colours():
    page = "".join(page_svg(figure, f"{name}-") for name, figure in every_figure().items())
    tree = ElementTree.fromstring(f"<body>{page}</body>")
    names = [element.attrib["id"] for element in tree.iter() if "id" in element.attrib]
    assert len(names) == len(set(names)) > 100
    asked = re.findall(r'(?:href="#|url\(#)([^")]+)', page)
    assert asked
    assert set(asked) <= set(names)
    assert not {"style", "metadata", "script"} & {element.tag for element in tree.iter()}
    svgs = [element for element in tree if element.tag.endswith("svg")]
    assert [svg.attrib["role"] for svg in svgs] == ["img"] * 9
    assert all(len(svg.attrib["aria-label"]) > 10 for svg in svgs)
    for number, colour in enumerate(SERIES[:3], 1):  # no figure here has a fourth curve
        assert f"var(--chart-{number}, {colour})" in page
    assert f"var(--chart-ink, {INK})" in page
    assert f"var(--chart-grid, {GRID})" in page
    bare = re.sub(r"var\([^)]*\)", "", page)
    assert not re.findall(r": #[0-9a-f]{6}", bare), "a colour that no page can change"
    assert "<?xml" not in page


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.filterwarnings("error")
def test_text_of_users_appears_as_itself_and_is_nothing_else(text):
    table, _ = scores(60, classes=3)
    table["label"] = table["label"].replace("class 0", text)
    table["suggested_label"] = table["suggested_label"].replace("class 0", text)
    for figure in (
        classes.class_bars(table),
        classes.confusions(table),
        classes.group_bars(harm([text, "b"], by=text), text),
    ):
        shown = plain(text).plain
        for svg in (rendered(figure, "svg").decode(), page_svg(figure, "x-")):
            assert any(shown[:15] in one for one in texts(svg))
            tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()}
            assert not tags & {"script", "b"}
        rendered(figure, "png")


def test_figures_need_no_torch():
    code = "import sys; import divacli.report.figures.plots; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_figure_shows_itself_in_a_notebook():
    figure = every_figure()["ridge"]
    assert figure._repr_png_() == rendered(figure, "png")
