"""The pages of five networks in a real browser, at the widths of a desk and a phone: every sum, every key."""

import base64
import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.nn.layers import layers
from cnnlite.nn.layers.activations import ReLU
from cnnlite.nn.layers.containers import Sequential
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.pooling import GlobalAvgPool2d
from cnnlite.nn.losses import CrossEntropy, Focal
from cnnlite.runs.checkpoint import Checkpoint
from cnnlite.tools.predict import Model
from cnnlite.tools.show import collect
from cnnlite.tools.show.build import show_page
from cnnlite.tools.show.collect import Subject
from cnnlite.utils.types import Array
from tests.support import shown
from tests.support.devtools import SIZES, Chromium
from tests.support.layer_cases import cases_of
from tests.support.shown import NETWORKS, around, around_case, arrays_of, bundled, loss_in_float64, loss_of

LEAST_SUMS = 25
"""Displayed sums compared in each of the ten combinations of network and width; half as many gradients."""

# Each verdict of the page: what it is about, the page's sum and NumPy's, and whether the page says that they agree.
VERDICTS = """[...document.querySelectorAll(".verdict:not(.unknown)")].map(e => [e.dataset.name,
    e.querySelector(".value").textContent, e.querySelector(".numpy").textContent, e.classList.contains("agrees")])"""
FACTS = re.compile(r'<script type="application/json" id="facts">(.*?)</script>')


def number(text: str) -> float:
    """A number as the page writes it."""
    return float(text.replace("\N{MINUS SIGN}", "-"))


def nodes_of(page: Path) -> list[dict[str, Any]]:
    """The nodes in a page, without their arrays."""
    (facts,) = FACTS.findall(page.read_text("utf-8"))
    nodes: list[dict[str, Any]] = json.loads(facts)["nodes"]
    return nodes


def first_of_each_view(nodes: list[dict[str, Any]]) -> list[int]:
    """The first node of each kind of view, and the one after those."""
    views = [node["view"] for node in nodes]
    return [*sorted(views.index(view) for view in set(views)), len(nodes)]


def place(tab: Chromium) -> tuple[int, int]:
    """Row and column in the words that are read out."""
    words = tab.run('document.querySelector(".status").textContent')
    found = re.search(r"row (\d+), column (\d+)", words)
    assert found, words
    return int(found[1]), int(found[2])


def selected(tab: Chromium, chooser: int = 0) -> int:
    """The channel, by its number in the layer, that is chosen in one of the rows of channels."""
    row = f"document.querySelectorAll('.chooser')[{chooser}]"
    name = tab.run(f"{row}.querySelector('[aria-checked=\"true\"] .number').textContent")
    colours = ["red", "green", "blue"]
    return colours.index(name) if name in colours else int(name)


def verdicts(tab: Chromium) -> dict[str, tuple[float, float]]:
    """The page's sums and NumPy's that are shown now; all have to agree, by the page's own rule."""
    found = tab.run(VERDICTS)
    assert all(agrees for *_, agrees in found), found
    return {name: (number(value), number(numpy)) for name, value, numpy, _ in found}


def click(tab: Chromium, script: str, size: str, *where: float) -> None:
    tab.click(script, *where, touch=size == "phone")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NETWORKS)
def test_displayed_sums_are_numpys_in_each_kind_of_layer(
    name: str, size: str, tab: Chromium, page_of: Callable[[str], Path]
) -> None:
    page, (model, subject) = page_of(name), bundled(name)
    nodes, expected = nodes_of(page), arrays_of(model, subject)
    tab.open(page, size)
    count = 0
    for index in first_of_each_view(nodes)[:-1]:
        node = nodes[index]
        click(tab, f"document.querySelector('.card[data-node=\"{index}\"]')", size)
        tab.wait_for("document.querySelector('.closeup')")
        if node["view"] in ("linear", "flatten"):
            keys = ["ArrowRight", "]", "ArrowRight"]
        else:
            keys = ["Home", "ArrowRight", "ArrowDown", "]", "End", "ArrowLeft", "[", "ArrowUp"]
        for key in keys:
            tab.press(key)
            value, numpy = verdicts(tab)["forward"]
            if node["view"] not in ("linear", "flatten") and node["name"]:
                i, j = place(tab)
                y = expected[node["name"]]
                y = y[i, j] if y.ndim == 3 else y
                k = selected(tab)
                np.testing.assert_allclose(
                    [value, numpy], y[k], rtol=2e-4, atol=2e-5 * np.abs(expected[node["name"]]).max()
                )
            if node["view"] == "convolution":
                assert value == pytest.approx(
                    sum_of_window(model, subject, nodes, index, (i, j, k), expected), rel=1e-4, abs=1e-4
                )
            count += 1
        if node["view"] in ("convolution", "max", "average"):
            count += moved_by_pointer(tab, size)
        tab.press("Escape")
        tab.wait_for("document.querySelector('.overview')")
        assert tab.run("document.activeElement.dataset.node") == str(index)
        assert tab.run("document.documentElement.scrollWidth <= innerWidth")
    assert count >= LEAST_SUMS
    assert tab.complaints == []
    assert tab.requests == [page.as_uri()]


def moved_by_pointer(tab: Chromium, size: str) -> int:
    """Click into input and output of a layer with windows; the window has to follow."""
    count = 0
    for map_ in (0, 1):
        seen = set()
        for where in ((0.1, 0.1), (0.9, 0.1), (0.5, 0.9)):
            click(tab, f"document.querySelectorAll('.stage .frame')[{map_}]", size, *where)
            verdicts(tab)
            seen.add(place(tab))
            count += 1
        assert len(seen) == 3, seen
    return count


def sum_of_window(
    model: Model,
    subject: Subject,
    nodes: list[dict[str, Any]],
    index: int,
    where: tuple[int, int, int],
    expected: dict[str, Array],
) -> float:
    """One output of a convolution, by nothing but slices and a sum, in float64."""
    node = nodes[index]
    source = nodes[node["inputs"][0]]
    x = model.normalizer(subject.image[None])[0] if not source["name"] else expected[source["name"]]
    layer = next(layer for name, layer in model.network.model.walk() if name == node["name"])
    assert isinstance(layer, Conv2d)
    windows, (i, j, k) = layer.windows, where
    edges = [(before, after) for before, after in zip(windows.top_left, windows.bottom_right, strict=True)]
    padded = np.pad(x.astype(np.float64), (*edges, (0, 0)))
    top, left = i * windows.stride[0], j * windows.stride[1]
    window = padded[top : top + windows.kernel[0], left : left + windows.kernel[1]]
    total = float((window * layer.params["weight"][..., k]).sum())
    return total + (float(layer.params["bias"][k]) if layer.has_bias else 0.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NETWORKS)
def test_displayed_gradients_are_slopes_of_the_loss(
    name: str, size: str, tab: Chromium, page_of: Callable[[str], Path]
) -> None:
    page, (model, subject) = page_of(name), bundled(name)
    nodes = nodes_of(page)
    network, _ = loss_in_float64(model, subject)
    tab.open(page, size)
    tab.press("g")
    tab.wait_for("document.querySelector('[aria-pressed=\"true\"]').textContent === 'gradients'")
    count = 0
    for index in first_of_each_view(nodes)[:-1]:
        node = nodes[index]
        click(tab, f"document.querySelector('.card[data-node=\"{index}\"]')", size)
        tab.wait_for("document.querySelector('.closeup')")
        found = verdicts(tab)
        if node["view"] == "convolution":
            slope = weight_slope(tab, network, model, subject, node["name"])
            assert found["weight"][0] == pytest.approx(slope, rel=5e-3, abs=2e-5)
            click(tab, "document.querySelectorAll('.ways button')[1]", size)
            found |= verdicts(tab)
        assert found or node["view"] in ("sum", "concat"), node
        for key in ("ArrowRight", "ArrowDown", "]", "End"):
            tab.press(key)
            count += len(verdicts(tab))
        tab.press("Escape")
        tab.wait_for("document.querySelector('.overview')")
    assert count >= LEAST_SUMS // 2
    assert tab.complaints == []
    assert tab.requests == [page.as_uri()]


def weight_slope(tab: Chromium, network: Any, model: Model, subject: Subject, name: str) -> float:
    """The slope of the loss, in float64, for the weight that is chosen."""
    label = tab.run('document.querySelector(".cells button.chosen").getAttribute("aria-label")')
    row, column = map(int, re.findall(r"\d+", label)[:2])
    weight = network.parameters[f"{name}.weight"].value
    place = (row, column, selected(tab, 1), selected(tab, 0))
    before, losses = weight[place], []
    for step in (1e-6, -1e-6):
        weight[place] = before + step
        losses.append(loss_of(network, model, subject))
    weight[place] = before
    return (losses[0] - losses[1]) / 2e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_the_whole_page_can_be_walked_by_keyboard(name: str, tab: Chromium, page_of: Callable[[str], Path]) -> None:
    page = page_of(name)
    count = len(nodes_of(page)) + 1
    tab.open(page)
    reached = []
    for _ in range(count + 12):
        tab.press("Tab")
        focus = "document.activeElement.dataset.node ?? document.activeElement.textContent"
        reached.append(tab.run(f"document.activeElement === document.body ? '' : {focus}"))
    reached = reached[: reached.index("Check every number") + 1]
    assert [word for word in reached if word.isdigit()] == [str(index) for index in range(count)]
    assert {"forward", "gradients", "Check every number"} <= set(reached)
    tab.run("document.querySelector('.card').focus()")
    tab.press("Enter")
    tab.wait_for("document.querySelector('.closeup')")
    titles = []
    for mode in ("values", "gradients"):
        for _ in range(count - 1):
            titles.append(tab.run("document.querySelector('h1').textContent"))
            verdicts(tab)
            before = tab.run("document.documentElement.dataset.place")
            tab.press("PageDown" if mode == "values" else "PageUp")
            tab.wait_for(f"document.documentElement.dataset.place !== '{before}'")
            assert tab.run("document.activeElement.tagName") == "H1"
        tab.press("g")
        tab.wait_for("document.documentElement.dataset.mode === " + repr("gradients" if mode == "values" else "values"))
    assert len(titles) == 2 * (count - 1)
    tab.press("Escape")
    tab.wait_for("document.querySelector('.overview')")
    assert tab.run("document.activeElement.dataset.node") == "0"
    assert tab.complaints == []


def test_arrows_step_the_window_and_the_space_bar_slides_it(tab: Chromium, page_of: Callable[[str], Path]) -> None:
    tab.open(page_of("seed-advanced"), hash_="#/1", calm=False)
    tab.press("Home")
    assert place(tab) == (0, 0)
    tab.press("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowUp")
    assert place(tab) == (0, 1)
    left = tab.run("document.querySelector('.mark.window').style.left")
    assert left == f"{100 * 2 / 32}%"  # a stride of 2 on 32 pixels
    tab.press(" ")
    tab.wait_for("document.querySelector('.status').textContent.startsWith('row 0, column 3')")
    tab.press(" ")
    stopped = place(tab)
    tab.run("new Promise(resume => setTimeout(resume, 700))")
    assert place(tab) == stopped
    tab.press("End")
    assert place(tab) == (14, 14)


def test_the_window_follows_the_pointer_until_a_click_holds_it(tab: Chromium, page_of: Callable[[str], Path]) -> None:
    tab.open(page_of("small"), hash_="#/1")
    frame = "document.querySelector('.stage .frame')"
    seen: list[tuple[int, int]] = []
    for act in (tab.point, tab.point, tab.click, tab.point, tab.click):
        act(frame, *((0.1, 0.1), (0.3, 0.6), (0.8, 0.4), (0.2, 0.2), (0.8, 0.4))[len(seen)])
        seen.append(place(tab))
    assert seen[2] == seen[3] == seen[4]
    assert len(set(seen)) == 3
    tab.point(frame, 0.5, 0.5)
    assert place(tab) not in seen
    tab.press("ArrowRight")
    held = place(tab)
    tab.point(frame, 0.1, 0.9)
    assert place(tab) == held


def test_losses_that_the_page_does_not_know_are_shown_and_said(tab: Chromium, tmp_path: Path) -> None:
    model, subject = bundled("seed-simple")
    for name, loss in (("focal", Focal()), ("balanced", CrossEntropy(0.1, "balanced").fit(np.arange(1, 11)))):
        page = tmp_path / f"{name}.html"
        page.write_text(show_page(model, loss, subject), encoding="utf-8")
        for mode in ("", "/gradients"):
            tab.open(page, hash_=f"#/5{mode}")
            assert tab.run("Boolean(document.querySelector('.note'))") == (name == "focal")
            assert ("weigh" in tab.run("document.querySelector('.lesson').textContent")) == (name == "balanced")
            found = verdicts(tab)
            if name == "balanced":
                assert found.keys() == ({"logit"} if mode else {"forward", "loss"})
        tab.open(page)
        assert checked(tab).startswith("✓")


def test_a_film_is_played_and_its_moments_are_chosen(tab: Chromium, tmp_path: Path) -> None:
    model, subject = bundled("small")
    rng = np.random.default_rng(0)
    arrays = {
        "steps": np.array([0, 5, 20]),
        "filters": rng.standard_normal((3, 4, 3, 3, 3)).astype(np.float32),
        "maps": rng.standard_normal((3, 2, 9, 9)).astype(np.float32),
    }
    page = tmp_path / "film.html"
    snapshots = Checkpoint(arrays)
    page.write_text(show_page(model, CrossEntropy(), subject, snapshots=snapshots), encoding="utf-8")
    tab.open(page)
    pictures = "[...document.querySelectorAll('.film-row canvas')].map(c => c.toDataURL())"
    seen = [tab.run(pictures)]
    assert len(seen[0]) == 6
    tab.run("document.querySelector('.film input').focus()")
    for step in ("5", "0"):
        tab.press("ArrowLeft")
        assert tab.run("document.querySelector('.moment').textContent") == f"step {step}"
        seen.append(tab.run(pictures))
    assert len({tuple(row) for row in seen}) == 3
    tab.click("document.querySelector('.film button')")
    tab.wait_for("document.querySelector('.moment').textContent === 'step 20'")
    tab.wait_for("document.querySelector('.film button').textContent === 'play'")
    assert tab.complaints == []


def test_rows_of_channels_are_chosen_from_by_arrows_too(tab: Chromium, page_of: Callable[[str], Path]) -> None:
    tab.open(page_of("small"), hash_="#/1")
    tab.press("Home")
    tab.run("document.querySelector('.chooser [aria-checked=\"true\"]').focus()")
    before = selected(tab)
    tab.press("ArrowRight")
    assert selected(tab) == (before + 1) % 32
    assert place(tab) == (0, 0)
    assert tab.run("document.activeElement.getAttribute('aria-checked')") == "true"


@pytest.mark.parametrize("name", ["seed-simple", "seed-advanced", "small"])
def test_every_number_of_a_page_agrees(name: str, tab: Chromium, page_of: Callable[[str], Path]) -> None:
    tab.open(page_of(name))
    words = checked(tab)
    assert re.match(r"✓ [\d,]{6,} numbers recomputed; all agree with NumPy", words), words


def checked(tab: Chromium) -> str:
    """What the page says when every number has been recomputed."""
    tab.run("document.querySelector('.checking button').click()")
    tab.wait_for("!document.querySelector('.checking button').disabled", 200)
    words: str = tab.run("document.querySelector('.result').textContent")
    return words


def test_sums_agree_where_only_some_channels_are_shown(
    tab: Chromium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "MOST_NUMBERS", 20_000)
    for name in ("small", "resnet20"):
        page = shown.page(tmp_path, name, *bundled(name))
        assert "rest_back" in page.read_text("utf-8")
        tab.open(page)
        assert "too large" in tab.run("document.querySelector('.note').textContent")
        assert checked(tab).startswith("✓")
        index = next(index for index, node in enumerate(nodes_of(page)) if "rest" in node)
        tab.run(f"location.hash = '#/{index}'")
        tab.wait_for(f"document.documentElement.dataset.place === '{index}'")
        assert "not in this page, by NumPy" in tab.run("document.querySelector('main').textContent")
        assert verdicts(tab).keys() == {"forward"}


def test_sums_agree_where_only_some_channels_of_groups_are_shown(
    tab: Chromium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "MOST_NUMBERS", 2500)
    layers = [
        Conv2d(12, 1),
        Conv2d(12, 3, padding=1, groups=12),
        Conv2d(24, 3, padding=2, dilation=2, groups=3),
        ReLU(),
    ]
    layers += [Conv2d(12, 3, padding=1, groups=4, padding_mode="reflect"), ReLU()]
    page = shown.page(tmp_path, "groups", *around(Sequential(layers), (9, 8, 3)))
    nodes = [node for node in nodes_of(page) if "groups" in node]
    assert len(nodes) == 3
    assert all(node["channels"] for node in nodes)
    assert {"rest" in node for node in nodes} == {False, True}  # what is depthwise needs no other channels
    tab.open(page)
    assert checked(tab).startswith("✓"), checked(tab)
    for node in range(len(nodes_of(page)) + 1):
        for mode in ("", "/gradients"):
            tab.run(f"location.hash = '#/{node}{mode}'")
            tab.wait_for(f"document.documentElement.dataset.place === '{node}{mode}'")
            tab.press("]")
            verdicts(tab)
    assert tab.complaints == []


def test_networks_of_large_and_of_grey_images_are_shown(tab: Chromium, tmp_path: Path) -> None:
    stem = Sequential([Conv2d(24, 7, 4, 3), ReLU(), GlobalAvgPool2d()])
    for index, in_shape in enumerate([(224, 160, 3), (90, 90, 1), (50, 60, 2)]):
        page = shown.page(tmp_path, str(index), *around(copy.deepcopy(stem), in_shape))
        assert page.stat().st_size < 10_000_000
        tab.open(page)
        assert checked(tab).startswith("✓")
        for node in range(6):
            for mode in ("", "/gradients"):
                tab.run(f"location.hash = '#/{node}{mode}'")
                tab.wait_for(f"document.documentElement.dataset.place === '{node}{mode}'")
                verdicts(tab)
        assert tab.complaints == []


@pytest.mark.parametrize("name", list(layers))
def test_every_number_agrees_around_every_layer(name: str, tab: Chromium, tmp_path: Path) -> None:
    cases = cases_of(name)
    new = [case for case in cases if case.options.keys() & {"groups", "dilation", "padding_mode", "ceil_mode"}]
    for index, case in enumerate([*cases[:: max(1, len(cases) // 6)], *new[::2]]):
        page = shown.page(tmp_path, str(index), *around_case(case))
        tab.open(page)
        assert checked(tab).startswith("✓"), (str(case), checked(tab))
        for node in range(len(nodes_of(page)) + 1):
            for mode in ("", "/gradients"):
                tab.run(f"location.hash = '#/{node}{mode}'")
                tab.wait_for(f"document.documentElement.dataset.place === '{node}{mode}'")
                verdicts(tab)
        assert tab.complaints == [], str(case)


def test_a_number_that_is_wrong_is_seen(tab: Chromium, page_of: Callable[[str], Path], tmp_path: Path) -> None:
    text = page_of("seed-advanced").read_text("utf-8")
    (numbers,) = re.findall(r'id="numbers">(.*?)<', text)
    nodes = nodes_of(page_of("seed-advanced"))
    values = np.frombuffer(base64.b64decode(numbers), "<f4").copy()
    shapes = json.loads(FACTS.findall(text)[0])["shapes"]
    start = sum(int(np.prod(shape)) for shape in shapes[: nodes[1]["y"]])
    values[start] *= 1.001  # row 0, column 0 of the first channel
    wrong = tmp_path / "wrong.html"
    wrong.write_text(text.replace(numbers, base64.b64encode(values.tobytes()).decode()), encoding="utf-8")
    tab.open(wrong)
    assert re.match(r"✗ \d+ of [\d,]+ numbers DO NOT AGREE, first the output of conv2d 0", checked(tab))
    tab.run("location.hash = '#/1'")
    tab.wait_for("document.querySelector('.closeup')")
    tab.run("document.querySelector('.chooser button').click()")
    tab.press("Home")
    assert [agrees for name, *_, agrees in tab.run(VERDICTS) if name == "forward"] == [False]
    assert "THEY DO NOT AGREE" in tab.run("document.querySelector('.verdict.differs').textContent")


# For all texts that are seen: the contrast with the colour behind them, as in WCAG 2.2; size; words.
CONTRASTS = """(() => {
  const parse = text => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return text.startsWith("color(srgb") ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
  };
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = e => {
    if (!e) return [255, 255, 255];
    const [r, g, b, a] = parse(getComputedStyle(e).backgroundColor);
    if (a === 1) return [r, g, b];
    const below = behind(e.parentElement);
    return [r, g, b].map((v, i) => v * a + below[i] * (1 - a));
  };
  const texts = [...document.querySelectorAll("header *, main *, footer *")].filter(e => !e.closest("[disabled], svg")
    && e.getClientRects().length && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
  return texts.map(e => {
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    const size = parseFloat(getComputedStyle(e).fontSize);
    return [(a + 0.05) / (b + 0.05), size, e.className + ": " + e.textContent];
  });
})()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_texts_are_legible_and_controls_have_names(
    size: str, dark: bool, tab: Chromium, page_of: Callable[[str], Path]
) -> None:
    page = page_of("small")
    views = first_of_each_view(nodes_of(page))
    for hash_ in ["", *(f"#/{index}{mode}" for index in views for mode in ("", "/gradients"))]:
        tab.open(page, size, hash_=hash_, dark=dark)
        found = tab.run(CONTRASTS)
        assert len(found) > 20
        pale = [entry for entry in found if entry[0] < 4.5]
        assert pale == [], hash_
        assert [entry for entry in found if entry[1] < 11] == [], hash_
        assert tab.run(NAMELESS) == [], hash_
        assert tab.run("document.documentElement.scrollWidth <= innerWidth"), hash_
        assert tab.complaints == []


NAMELESS = """[...document.querySelectorAll("button, a, input, canvas, svg, [tabindex='0']")].filter(e =>
  !e.closest("[aria-hidden='true']") && !(e.getAttribute("aria-label") || e.textContent.trim()))
  .map(e => e.outerHTML)"""


def test_who_wants_no_motion_gets_none(tab: Chromium, page_of: Callable[[str], Path]) -> None:
    moving = "[...document.querySelectorAll('.mark, .card')].map(e => getComputedStyle(e).transitionDuration)"
    tab.open(page_of("small"), hash_="#/1")
    assert set(tab.run(moving)) == {"0s"}
    tab.open(page_of("small"), hash_="#/1", calm=False)
    assert "0s" not in set(tab.run(moving))


def test_the_colours_can_be_chosen(tab: Chromium, page_of: Callable[[str], Path]) -> None:
    tab.open(page_of("seed-simple"))
    seen = []
    for _ in range(3):
        seen.append(tab.run("getComputedStyle(document.body).backgroundColor"))
        tab.click("document.querySelector('.theme')")
    assert len(set(seen)) == 2
    assert tab.run("document.activeElement.className") == "theme"
