"""The page in a real browser: what people press, see and save. Skipped where there is none."""

import base64
import csv
import json
from dataclasses import replace

import browser as browsers
import numpy as np
import page_examples
import pytest
from test_page import HOSTILE, hostile_page

from musc_jax.data.verdicts import read_verdicts
from musc_jax.report import page as pages
from musc_jax.report.pictures import color_scale, heat

pytestmark = pytest.mark.skipif(browsers.PROGRAM is None, reason="expected Chromium")

NAMES = "[...document.querySelectorAll('#list .name')].map((name) => name.textContent)"
COUNT = "parseInt(document.getElementById('judged').textContent)"


@pytest.fixture(scope="module")
def tab():
    with browsers.browser() as tab:
        yield tab


@pytest.fixture(scope="module")
def samples():
    found = page_examples.samples(8)
    # One good part scores high, and one defective part low.
    low, high = found[1], found[2]
    found[1] = replace(low, pred_score=0.4, pred_label=0)
    found[2] = replace(high, pred_score=0.8, pred_label=1, voters=page_examples.voters())
    return page_examples.ranked(found)


@pytest.fixture(scope="module")
def file(samples, tmp_path_factory):
    return written(page_examples.page(samples), tmp_path_factory.mktemp("page"), charts=False)


@pytest.fixture(scope="module")
def charted(samples, tmp_path_factory):
    """The same with the script for charts."""
    if pages.charts_script() is None:
        pytest.skip("expected plotly")
    return written(page_examples.page(samples), tmp_path_factory.mktemp("page"))


def written(page, folder, **options):
    path = folder / "report.html"
    path.write_text(pages.report_html(page, **options), encoding="utf-8")
    return path


@pytest.fixture
def shown(tab, file):
    """The page, opened anew; what a person does with it must leave no complaint."""
    tab.open(file)
    yield tab
    assert tab.complaints() == []


def go_to(tab, name):
    """Choose a sample by its name."""
    index = f"JSON.parse(content.textContent).samples.findIndex((sample) => sample.name === {json.dumps(name)})"
    tab.run(f"document.querySelector(`[data-index='${{{index}}}']`).click()")


def by_score(samples, *, ascending=False):
    return [s.name for s in sorted(samples, key=lambda s: s.pred_score if ascending else -s.pred_score)]


def test_samples_are_there_mistakes_first(shown, samples):
    names = shown.run(NAMES)
    assert sorted(names) == sorted(sample.name for sample in samples)
    wrong = {sample.name for sample in samples if sample.pred_label != sample.gt_label}
    assert set(names[:2]) == wrong == {"part_001", "part_002"}
    assert names[2:] == [name for name in by_score(samples) if name not in wrong]
    assert shown.run("document.getElementById('detail-name').textContent") == names[0]
    assert "scores mean nothing" in shown.run("document.getElementById('notes').textContent")
    text = shown.run("document.body.innerText")
    for part in ("darker than the others", "dino_vitb8", "paired by name", "is no picture", "no clear defects"):
        assert part in text


def choose(tab, selector, value):
    tab.run(
        f"""(() => {{
            const field = document.querySelector({json.dumps(selector)});
            field.value = {json.dumps(value)};
            for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, {{bubbles: true}}));
        }})()"""
    )


def test_sorting_filtering_and_searching(shown, samples):
    choose(shown, "#sort", "worst")
    assert shown.run(NAMES) == by_score(samples)
    choose(shown, "#sort", "near")
    assert shown.run(NAMES) == [s.name for s in sorted(samples, key=lambda s: abs(s.pred_score - 0.62))]
    choose(shown, "#filter", "missed")
    assert shown.run(NAMES) == ["part_001"]
    choose(shown, "#filter", "health")
    assert shown.run(NAMES) == ["part_000"]
    choose(shown, "#filter", "all")
    choose(shown, "#search", "T_00")
    assert len(shown.run(NAMES)) == 8
    choose(shown, "#search", "bATCH/part_003")
    assert shown.run(NAMES) == ["part_003"]
    assert shown.run("document.getElementById('count').textContent") == "1 of 8"
    choose(shown, "#search", "nothing")
    assert shown.run(NAMES) == []


def test_the_table_sorts_by_its_columns(shown, samples):
    shown.click("#as-table")
    shown.click("[data-column=score]")
    assert shown.run(NAMES) == by_score(samples)
    assert shown.run("document.querySelector('[aria-sort]').getAttribute('aria-sort')") == "descending"
    shown.click("[data-column=score]")
    assert shown.run(NAMES) == by_score(samples, ascending=True)
    assert shown.run("document.querySelector('[aria-sort]').textContent") == "Score ↑"
    shown.press("Enter", code=13, text="\r")
    assert shown.run(NAMES) == by_score(samples), "the pressed heading keeps the focus"
    shown.click("[data-column=name]")
    assert shown.run(NAMES) == sorted(s.name for s in samples)
    shown.click("[data-column=name]")
    assert shown.run(NAMES) == sorted((s.name for s in samples), reverse=True)
    shown.click("[data-column=name]")
    row = shown.run("document.querySelector('#list tbody tr').innerText.split('\\t').map((cell) => cell.trim())")
    first = min(samples, key=lambda s: s.name)
    assert row == [
        str(first.rank),
        first.name,
        f"{first.pred_score:.3f}",
        f"{first.max_score:.3f}",
        f"{first.percentile:.0f}",
        "good",
        "good",
        "–",
    ]


def test_the_slider_judges_anew_at_once(shown, samples):
    assert shown.run(COUNT) == sum(sample.pred_label for sample in samples) == 2
    shown.run("document.getElementById('slider').focus()")
    badges = "[...document.querySelectorAll('#list .badge')].map((badge) => badge.textContent)"
    shown.press("End", code=35)
    assert shown.run(COUNT) == 0
    assert shown.run(badges) == ["good"] * 8
    shown.press("Home", code=36)
    assert shown.run(COUNT) == 8
    assert shown.run(badges) == ["defective"] * 8
    for _ in range(30):
        shown.press("ArrowRight", code=39)
    threshold = shown.run("+document.getElementById('threshold').value")
    assert shown.run(COUNT) == sum(sample.pred_score > threshold for sample in samples)
    choose(shown, "#threshold", str(samples[2].pred_score))
    assert shown.run(COUNT) == sum(sample.pred_score > samples[2].pred_score for sample in samples)
    cells = (
        "[...document.querySelectorAll('[data-cell]')].map((cell) => [cell.dataset.cell, parseInt(cell.textContent)])"
    )
    positive = {sample.name for sample in samples if sample.pred_score > samples[2].pred_score}
    defective = {sample.name for sample in samples if sample.gt_label}
    assert dict(shown.run(cells)) == {
        "found": len(positive & defective),
        "missed": len(defective - positive),
        "false": len(positive - defective),
        "passed": len(samples) - len(positive | defective),
    }
    shown.click("[data-cell=missed]")
    assert set(shown.run(NAMES)) == defective - positive
    shown.click("#reset")
    assert shown.run(COUNT) == 2
    assert shown.run("document.querySelector('#rules input:checked').value") == "0"


def test_rules_are_chosen_and_drawn(shown, samples):
    assert shown.run("[...document.querySelectorAll('.rule-name')].map((name) => name.textContent).sort()") == sorted(
        page_examples.THRESHOLDS
    )
    place = "[...document.querySelectorAll('#histogram .threshold-line')].map((line) => +line.getAttribute('x1'))"
    before = shown.run(place)
    shown.click("#rules label:nth-of-type(4)")
    assert shown.run(COUNT) == sum(sample.pred_score > 0.55 for sample in samples)
    assert shown.run(place) < before
    assert "What 0.55 takes for granted" in shown.run("document.getElementById('assumption').textContent")
    shown.click("#rules label:nth-of-type(5)")
    assert shown.run(COUNT) == 0, "no clear defects"
    bars = "[...document.querySelectorAll('#histogram .bin title')].map((t) => parseInt(t.textContent.split(': ')[1]))"
    assert sum(shown.run(bars)) == 8


def test_arrow_keys_go_from_sample_to_sample(shown):
    names = shown.run(NAMES)
    current = "document.getElementById('detail-name').textContent"
    shown.press("ArrowRight", code=39)
    shown.press("ArrowRight", code=39)
    assert shown.run(current) == names[2]
    shown.press("ArrowLeft", code=37)
    assert shown.run(current) == names[1]
    shown.click("#list [role=option]:nth-child(5)")
    assert shown.run(current) == names[4]
    shown.press("ArrowDown", code=40)
    assert shown.run(current) == names[5]
    assert shown.run("document.activeElement.querySelector('.name').textContent") == names[5], "the focus goes along"
    for _ in range(9):
        shown.press("ArrowRight", code=39)
    assert shown.run(current) == names[-1], "the last stays the last"
    shown.run("document.getElementById('search').focus()")
    shown.press("ArrowLeft", code=37)
    assert shown.run(current) == names[-1], "in a field the keys are the field's"


def saved(tab, folder):
    tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True)
    tab.click("#save")
    tab.wait("Browser.downloadProgress", lambda event: event["state"] == "completed")
    return (folder / "verdicts.csv").read_bytes().decode()


def test_verdicts_are_clicked_typed_and_saved(tab, tmp_path):
    names = ["plain", "com,ma", '"quoted"\r\nlines', "=1+1", "деталь 部品", HOSTILE[0]]
    found = page_examples.samples(8, size=16)[: len(names)]
    found = [replace(sample, name=name) for sample, name in zip(found, names)]
    found[3] = replace(found[3], verdict="good")
    file = written(page_examples.page(page_examples.ranked(found)), tmp_path, charts=False)
    tab.open(file)
    choose(tab, "#sort", "alphabet")
    order = tab.run("[...document.querySelectorAll('#list [data-index]')].map((item) => +item.dataset.index)")
    tab.run("document.querySelector('#list [data-index]').click()")
    tab.press("d")
    assert "checked: defective" in tab.run("document.querySelector('#list [data-index]').textContent")
    tab.press("ArrowRight", code=39)
    tab.click("[data-verdict=good]")
    tab.press("ArrowRight", code=39)
    tab.press("g")
    tab.press("u")
    content = json.loads(tab.run("document.getElementById('content').textContent"))
    said = {content["samples"][order[0]]["name"]: "defective", content["samples"][order[1]]["name"]: "good"}
    said.setdefault("=1+1", "good")
    third = content["samples"][order[2]]["name"]
    if third == "=1+1":
        del said[third]
    text = saved(tab, tmp_path)
    rows = list(csv.DictReader(text.splitlines(keepends=True)))
    assert {row["sample"]: row["verdict"] for row in rows} == said
    assert text.startswith("sample,verdict\r\n")
    # What it saves is what --verdicts takes up.
    taken = read_verdicts(tmp_path / "verdicts.csv", names)
    assert taken == {name: int(verdict == "defective") for name, verdict in said.items()}
    choose(tab, "#filter", "open")
    assert len(tab.run(NAMES)) == len(names) - len(said)
    tab.open(file)
    assert len(said) == tab.run("parseInt(document.getElementById('kept').textContent)"), (
        "kept until it is opened again"
    )
    assert tab.complaints() == []


def pixels(tab, selector):
    """RGB of a canvas, once it is drawn."""
    find = f"document.querySelector({json.dumps(selector)})"
    tab.until(f"{find} && {find}.getContext('2d').getImageData(0, 0, 1, 1).data[3] === 255")
    width, height, values = tab.run(
        f"""(() => {{
            const {{width, height}} = {find};
            const bytes = {find}.getContext("2d").getImageData(0, 0, width, height).data;
            let text = "";
            for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
            return [width, height, btoa(text)];
        }})()"""
    )
    drawn = np.frombuffer(base64.b64decode(values), np.uint8).reshape(height, width, 4)
    return drawn[..., :3].astype(float)


def test_equal_colours_are_equal_excess(shown, samples):
    """Maps in the page have the colours that the library's pictures have, each kind from its own normal level on."""
    sample = max(samples, key=lambda one: one.max_score)
    go_to(shown, sample.name)
    low, high = color_scale(np.stack([one.maps["fused"] for one in samples]))
    for kind in ("2D", "3D", "fused"):
        drawn = pixels(shown, f"[data-kind='{kind}'] canvas")
        begin, _ = color_scale(np.stack([one.maps[kind] for one in samples]))
        expected = heat((sample.maps[kind] - begin) / (high - low))
        size = len(drawn) // len(expected)
        seen = drawn.reshape(len(expected), size, len(expected), size, 3).mean((1, 3))
        # 256 levels of a map, and enlarging it, move a colour by up to 14 of 255 where it is steep.
        np.testing.assert_allclose(seen[2:-2, 2:-2], expected[2:-2, 2:-2], atol=20)
    hottest = np.unravel_index(sample.maps["fused"].argmax(), (64, 64))
    overlay, image = pixels(shown, "[data-view=overlay] canvas"), pixels(shown, "[data-view=image] canvas")
    y, x = (8 * np.array(hottest) + 4).tolist()
    assert overlay[y, x, 0] > overlay[y, x, 2] + 60, "hot"
    assert np.ptp(overlay[4, 4]) <= 2, "what is normal is the image in grey"
    np.testing.assert_allclose(image[4, 4], (190, 170, 60), atol=8)


def test_outlines_lie_around_what_is_hot_and_what_is_labelled(shown, samples):
    sample = max(samples, key=lambda one: one.max_score)
    go_to(shown, sample.name)
    drawn = pixels(shown, "[data-view=outline] canvas")
    for color, marked in (((255, 64, 160), sample.maps["fused"] > 0.6), ((60, 220, 90), sample.gt_mask)):
        y, x = np.nonzero((drawn == color).all(-1))
        inside = np.argwhere(marked)
        assert len(y), color
        for found, (first, last) in zip((y, x), zip(inside.min(0), inside.max(0))):
            assert found.min() == pytest.approx(8 * first, abs=10)
            assert found.max() == pytest.approx(8 * (last + 1), abs=10)
    box = shown.run("document.querySelector('.box').getAttribute('style')")
    region = sample.regions[0]
    assert f"left:{100 * region.box[0] / 64}%" in box


def camera(tab):
    return tab.run("document.getElementById('cloud')._fullLayout.scene._scene.getCamera().eye")


def test_the_cloud_can_be_turned(tab, charted):
    shown = tab
    # Small, because it is drawn without any graphics hardware.
    shown.open(charted, width=620, height=500)
    assert not shown.run("Boolean(self.Plotly && document.querySelector('#cloud'))"), "not before it is asked for"
    shown.click("#show-cloud")
    shown.until("document.querySelector('#cloud canvas') && !document.querySelector('.cloud-tools').hidden")
    before = camera(shown)
    shown.run("document.getElementById('cloud').scrollIntoView({block: 'center'})")
    x, y = shown.run("(({x, y, width, height}) => [x + width / 2, y + height / 2])(cloud.getBoundingClientRect())")
    shown.drag((x, y), (x + 40, y), (x + 90, y + 20))
    shown.until(f"Math.abs(cloud._fullLayout.scene._scene.getCamera().eye.x - {before['x']}) > 0.05")
    dragged = camera(shown)
    shown.click(".cloud-tools [aria-label='Turn left']")
    shown.until(f"Math.abs(cloud._fullLayout.scene._scene.getCamera().eye.x - {dragged['x']}) > 0.05")
    turned = camera(shown)
    shown.press("ArrowRight", code=39)
    shown.until("document.querySelector('#cloud canvas') && !document.querySelector('.cloud-tools').hidden")
    assert camera(shown)["x"] == pytest.approx(turned["x"]), "the next cloud is seen from the same side"
    trace = shown.run("(({x, marker}) => [x.length, marker.cmin, marker.cmax])(cloud.data[0])")
    content = json.loads(shown.run("document.getElementById('content').textContent"))
    normal = content["kinds"]["fused"]["normal"]
    assert trace == [1500, pytest.approx(normal), pytest.approx(normal + content["span"])]


def test_curves_are_drawn_when_they_come_into_view(tab, charted):
    shown = tab
    shown.open(charted, height=300)
    shown.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert not shown.run("document.querySelector('.curve')"), "a phone has better things to do until then"
    shown.run("document.getElementById('curves').scrollIntoView()")
    shown.until("document.querySelectorAll('#curves .js-plotly-plot').length === 2")
    roc, precision = shown.run(
        "[...document.querySelectorAll('#curves .js-plotly-plot')].map(({data}) => data.map(({x, y}) => [x, y]))"
    )
    area = np.trapezoid(*roc[0][::-1])
    assert f"AUROC {100 * area:.1f} %" in shown.run("document.getElementById('metrics').textContent")
    assert roc[1] == [[pytest.approx(1 / 6)], [0.5]], "the point at the threshold"
    assert precision[1] == [[0.5], [0.5]]


@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        ("HTMLCanvasElement.prototype.getContext = () => null", "no WebGL"),
        ("delete self.DecompressionStream", "newer browser"),
        (None, "pip install"),
    ],
)
def test_a_cloud_that_cannot_be_drawn_says_why(tab, request, before, sentence):
    script = tab.call("Page.addScriptToEvaluateOnNewDocument", source=before or "0")
    tab.open(request.getfixturevalue("charted" if before else "file"), height=300)
    tab.call("Page.removeScriptToEvaluateOnNewDocument", **script)
    tab.click("#show-cloud")
    tab.until(f"document.getElementById('detail').innerText.includes({json.dumps(sentence)})")
    # All else goes on.
    tab.run("document.getElementById('slider').focus()")
    tab.press("Home", code=36)
    assert tab.run(COUNT) == 8
    tab.click("#as-table")
    assert len(tab.run(NAMES)) == 8
    assert tab.complaints() == []


def test_hostile_names_do_nothing(tab, tmp_path):
    page = hostile_page(page_examples.samples(4, size=16))
    tab.open(written(page, tmp_path, charts=False), width=360, height=740)
    tab.run("window.went = []; window.onerror = (text) => went.push(text)")
    tab.click("#as-table")
    choose(tab, "#sort", "alphabet")
    for _ in page.samples:
        tab.press("ArrowRight", code=39)
    tab.run("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    assert tab.run("went.length") == 0
    allowed = {"script": 3, "img": 1, "iframe": 0, "object": 0, "base": 0, "form": 0}
    for name, count in allowed.items():
        assert tab.run(f"document.querySelectorAll('{name}').length") == count, name
    assert tab.run("document.title") == HOSTILE[0]
    names = set(tab.run(NAMES))
    assert any(HOSTILE[0] in name for name in names)
    assert any("\\u{202e}gnp.exe\\u{2066}" in name for name in names), "what turns the text around is spelled out"
    assert any(HOSTILE[-1] in name for name in names), "and other scripts are as they were"
    assert tab.run("document.documentElement.scrollWidth <= innerWidth"), "long names stay inside"
    assert tab.complaints() == []


def test_the_browser_is_kept_from_scripts_and_networks(tab, file):
    """Should a name become markup one day after all, the page's policy still holds."""
    tab.open(file)
    tab.run(
        "window.refused = []; "
        "document.addEventListener('securitypolicyviolation', (event) => refused.push(event.effectiveDirective))"
    )
    attempts = (
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.taken = 1'}))",
        "document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=\"window.taken = 1\">')",
        "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))",
        "fetch('http://127.0.0.1:9/').catch(() => {})",
        "document.body.insertAdjacentHTML('beforeend', '<iframe src=\"http://127.0.0.1:9/\"></iframe>')",
    )
    for i, attempt in enumerate(attempts):
        tab.run(attempt)
        tab.until(f"refused.length > {i}")
    assert not tab.run("window.taken")
    directives = ["script-src-elem", "script-src-attr", "img-src", "connect-src", "frame-src"]
    assert tab.run("refused") == directives


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_widths_and_colours(tab, file, width, dark):
    tab.open(file, width=width, height=800, dark=dark)
    lightness = "parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
    assert (tab.run(lightness) < 60) == dark
    assert tab.run("document.documentElement.scrollWidth <= innerWidth"), "nothing hangs over the edge"
    assert tab.run(CONTRAST) == []
    tab.click("#as-table")
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")
    tab.click("#theme")
    assert (tab.run(lightness) < 60) != dark
    assert tab.complaints() == []


# Texts whose contrast with what is behind them is below 4.5, as WCAG counts it.
CONTRAST = """(() => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const [r, g, b, a = 1] = parse(getComputedStyle(at).backgroundColor);
            if (a > 0.9) return [r, g, b];
        }
        return [255, 255, 255];
    };
    const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
        .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const found = [];
    for (const element of document.querySelectorAll("#app *")) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!own || !element.checkVisibility() || element.closest("svg, [disabled], option")) continue;
        const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) found.push([element.className, element.textContent.slice(0, 40), ratio]);
    }
    return found;
})()"""


def test_everything_that_is_used_has_a_name(shown):
    shown.click("#as-table")
    nodes = shown.call("Accessibility.getFullAXTree")["nodes"]
    used = {"button", "slider", "spinbutton", "searchbox", "combobox", "radio", "link", "image", "img"}
    roles = [node for node in nodes if not node["ignored"] and node["role"]["value"] in used]
    assert {node["role"]["value"] for node in roles} >= {
        "button",
        "slider",
        "spinbutton",
        "searchbox",
        "combobox",
        "radio",
    }
    assert [node["role"]["value"] for node in roles if not node.get("name", {}).get("value")] == []


def test_everything_can_be_reached_by_the_tab_key(shown):
    seen = []
    for _ in range(60):
        shown.press("Tab", code=9)
        found = shown.run(
            """(() => {
                const now = document.activeElement;
                const ring = getComputedStyle(now).outlineStyle !== "none";
                const {verdict, step, index} = now.dataset;
                const what = now.id || verdict || step || now.name || (index && "item");
                return [what ?? now.className, ring];
            })()"""
        )
        seen.append(found)
        if found[0] == "save" or found[0] == "":
            break
    reached = [name for name, _ in seen]
    for name in ("theme", "slider", "threshold", "rule", "search", "filter", "sort", "as-table", "item", "good", "1"):
        assert name in reached, name
    assert reached.count("item") == 1, "the list is one stop"
    assert [name for name, ring in seen if name and not ring] == []


def test_two_hundred_samples(tab, tmp_path):
    """All are there at once; pictures are decoded as they come into view."""
    found = page_examples.samples(200, size=32, points=False, labels=False)
    tab.open(written(page_examples.page(found), tmp_path))
    assert len(tab.run(NAMES)) == 200
    pixel = "canvas.getContext('2d').getImageData(99, 99, 1, 1).data[3]"
    drawn = f"[...document.querySelectorAll('canvas.thumbnail')].map((canvas) => {pixel})"
    tab.until(f"{drawn}.filter(Boolean).length > 3")
    assert tab.run(f"{drawn}.filter(Boolean).length") < 60
    tab.run("document.querySelector('#list [data-index]').focus()")
    for _ in range(12):
        tab.press("ArrowDown", code=40)
    tab.until(f"{drawn}[12]")
    assert tab.complaints() == []


def test_a_page_about_nothing(tab, tmp_path):
    page = pages.Page("Empty", [], notes=["Nothing could be read."], skipped=[("a.png", "is no picture")])
    tab.open(written(page, tmp_path))
    assert "Nothing could be read." in tab.run("document.body.innerText")
    assert "is no picture" in tab.run("document.body.innerText")
    assert tab.complaints() == []
    odd = pages.PageSample("odd", float("nan"), float("nan"), 0.0, 1)
    tab.open(written(pages.Page("Odd", [odd]), tmp_path))
    assert tab.run(NAMES) == ["odd"]
    assert "Nothing decided yet" in tab.run("document.body.innerText")
    tab.press("ArrowRight", code=39)
    tab.press("g")
    tab.run("document.getElementById('slider').focus()")
    tab.press("Home", code=36)
    assert tab.complaints() == []
