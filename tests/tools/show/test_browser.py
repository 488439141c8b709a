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
NUMBERS = re.compile(r'id="numbers">(.*?)<')


def number(text: str) -> float:
    """A number as the page writes it."""
    return float(text.replace("\N{MINUS SIGN}", "-"))


def nodes_of(page: Path) -> list[dict[str, Any]]:
    """The nodes in a page, without their arrays."""
    (facts,) = FACTS.findall(page.read_text("utf-8"))
    nodes: list[dict[str, Any]] = json.loads(facts)["nodes"]
    return nodes


def arrays_in(page: Path) -> list[Array]:
    """The arrays in a page, by their numbers in the facts."""
    text = page.read_text("utf-8")
    values = np.frombuffer(base64.b64decode(NUMBERS.findall(text)[0]), "<f4")
    shapes = json.loads(FACTS.findall(text)[0])["shapes"]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(values, ends[:-1]), shapes, strict=True)]


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
    colours = {"red": 0, "green": 1, "blue": 2, "grey": 0}
    return colours[name] if name in colours else int(name)


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


def hint(tab: Chromium) -> str:
    """What the page says about the pointer."""
    words: str = tab.run("document.querySelector('.hint .mouse').textContent")
    return words


def test_only_what_moves_the_frame_holds_it_and_the_hint_says_so(tab: Chromium, page_of: Callable[[str], Path]) -> None:
    tab.open(page_of("small"), hash_="#/1")
    frame, style = "document.querySelector('.stage .frame')", "getComputedStyle(document.querySelector('.mark'))"
    for key, there in (("]", "1"), ("[", "1"), ("g", "1/gradients"), ("g", "1"), ("PageDown", "2"), ("PageUp", "1")):
        tab.press(key)
        tab.wait_for(f"document.documentElement.dataset.place === '{there}'")
    assert (hint(tab)[:17], tab.run(f"{style}.outlineStyle")) == ("The frame follows", "dashed")
    for key in ("ArrowRight", "Home", "End"):
        tab.press(key)
        assert (hint(tab)[:17], tab.run(f"{style}.outlineStyle")) == ("The frame is held", "solid")
        at = place(tab)
        tab.point(frame, 0.3, 0.7)
        assert place(tab) == at
        tab.click(frame, 0.4, 0.6)  # elsewhere: it goes there, and is held
        assert (hint(tab)[:17], place(tab) == at) == ("The frame is held", False)
        tab.click(frame, 0.4, 0.6)  # into it: it follows again
        assert hint(tab).startswith("The frame follows")
        tab.point(frame, 0.6, 0.2)
        assert place(tab) != at
    tab.press("ArrowLeft", "PageDown")
    tab.wait_for("document.documentElement.dataset.place === '2'")
    assert hint(tab).startswith("The frame follows")


def test_pointing_at_a_channel_does_not_look_like_choosing_it(tab: Chromium, page_of: Callable[[str], Path]) -> None:
    tab.open(page_of("small"), hash_="#/1")
    border = "getComputedStyle(document.querySelectorAll('.item')[{}]).borderColor".format
    chosen = selected(tab)
    other = (chosen + 1) % 32
    resting = tab.run(border(other))
    tab.point(f"document.querySelectorAll('.item')[{other}]")
    assert tab.run(border(other)) == resting != tab.run(border(chosen))


def test_fingers_and_mice_get_hints_of_their_own(tab: Chromium, page_of: Callable[[str], Path]) -> None:
    for size, kind in (("desk", "mouse"), ("phone", "touch")):
        tab.open(page_of("small"), size, hash_="#/1")
        shown = tab.run(
            "[...document.querySelectorAll('.mouse, .touch')].filter(e => e.getClientRects().length)"
            ".map(e => [e.classList.contains('mouse') ? 'mouse' : 'touch', e.textContent])"
        )
        assert [name for name, _ in shown] == [kind, kind]
        assert ("Page Down" in shown[1][1]) == (kind == "mouse")


@pytest.mark.parametrize("rank", [0, 1, 9])
def test_the_head_says_whether_the_guess_is_right_and_has_the_label_always(
    rank: int, tab: Chromium, tmp_path: Path
) -> None:
    model, subject = bundled("seed-simple")
    order = np.argsort(-model.network.forward(model.normalizer(subject.image[None]), training=False)[0])
    best, label = (model.classes[order[place]] for place in (0, rank))
    page = shown.page(tmp_path, "guess", model, Subject(subject.image, int(order[rank]), "an image"))
    for hash_ in ("", "#/1"):
        tab.open(page, hash_=hash_)
        said = f"✓ right: {best}" if rank == 0 else f"✗ wrong: {best}, not {label}"
        assert tab.run("document.querySelector('.outcome').textContent") == said
        rows = tab.run(
            "[...document.querySelectorAll('.guess li')].filter(e => e.getClientRects().length)"
            ".map(e => [...e.querySelector('.name').children].map(part => part.textContent))"
        )
        assert rows[0][0] == best
        assert [row[0] for row in rows if row[1:] == ["label"]] == [label]
        assert len(rows) == {"": 3 + (rank > 2), "#/1": 1 + (rank > 0)}[hash_]


def test_channels_of_images_are_called_by_their_colours(tab: Chromium, tmp_path: Path) -> None:
    layers_after = Sequential([ReLU(), GlobalAvgPool2d()])
    for channels, names in ((3, ["red", "green", "blue"]), (1, ["grey"]), (2, ["0", "1"])):
        page = shown.page(tmp_path, str(channels), *around(copy.deepcopy(layers_after), (12, 12, channels)))
        for node in (0, 1, 2):
            tab.open(page, hash_=f"#/{node}")
            assert tab.run("[...document.querySelectorAll('.item .number')].map(e => e.textContent)") == names
            captions = tab.run("[...document.querySelectorAll('.picked figcaption')].map(e => e.textContent)")
            assert all(caption.endswith(tuple(names)) for caption in captions), captions


LEGENDS = """[...document.querySelectorAll(".picked .legend")].map(e => e.textContent)"""


def test_legends_give_the_numbers_that_there_are(tab: Chromium, page_of: Callable[[str], Path]) -> None:
    model, subject = bundled("small")
    tab.open(page_of("small"), hash_="#/0")
    x = model.normalizer(subject.image[None])[0]
    for channel, colour in enumerate(("red", "green", "blue")):
        tab.click(f"document.querySelectorAll('.item')[{channel}]")
        bytes_, numbers = tab.run(LEGENDS)
        assert bytes_ == "0255"
        assert colour in tab.run("document.querySelectorAll('.picked figcaption')[0].textContent")
        found = re.fullmatch(r"(≤ )?(\u2212?[\d.]+)(≥ )?(\u2212?[\d.]+)", numbers)
        assert found, numbers
        for end, side, beyond in (
            (found[2], x[..., channel].min(), found[1]),
            (found[4], x[..., channel].max(), found[3]),
        ):
            assert (number(end) == pytest.approx(side, abs=6e-3)) != bool(beyond), numbers
            assert abs(number(end)) <= abs(side) + 6e-3


# Grids of numbers in which a digit is cut off, or a heading is wider than what is below it.
CUT = """[...document.querySelectorAll(".cell")].filter(e => e.textContent && e.scrollWidth > e.clientWidth)
    .map(e => [e.textContent, e.clientWidth, e.scrollWidth])"""
WIDE = """[...document.querySelectorAll(".grid")].filter(e => e.querySelector("figcaption").scrollWidth > e.clientWidth
    || e.getBoundingClientRect().right > innerWidth).map(e => e.textContent)"""


@pytest.mark.parametrize("size", SIZES)
def test_no_digit_is_cut_off(size: str, tab: Chromium, tmp_path: Path) -> None:
    for kernel in (2, 3, 5, 7, 8):
        page = shown.page(tmp_path, str(kernel), *around(Sequential([Conv2d(4, kernel), ReLU()]), (16, 16, 3)))
        for hash_ in ("#/1", "#/1/gradients"):
            tab.open(page, size, hash_=hash_)
            written = 0
            for turn in range(6):
                tab.press(*("Home", "ArrowRight", "ArrowDown", "]")[: 1 + turn % 4])
                if hash_ == "#/1/gradients" and turn == 2:
                    click(tab, "document.querySelectorAll('.ways button')[1]", size)
                assert tab.run(CUT) == [], (kernel, hash_)
                assert tab.run(WIDE) == [], (kernel, hash_)
                written += tab.run("document.querySelectorAll('.cell').length")
            assert written > 6 * kernel


def test_what_comes_back_to_a_pixel_lies_as_in_the_picture(tab: Chromium, page_of: Callable[[str], Path]) -> None:
    page = page_of("small")
    nodes, arrays = nodes_of(page), arrays_in(page)
    tab.open(page, hash_="#/1/gradients")
    tab.click("document.querySelectorAll('.ways button')[1]")
    tab.press("Home", *["ArrowRight"] * 4, *["ArrowDown"] * 3)
    (i, j), c, k = place(tab), selected(tab, 0), selected(tab, 1)
    assert (i, j) == (3, 4)
    cells = (
        "[...document.querySelectorAll('.numbers .grid')].map(g => [...g.querySelectorAll('.cell')].map(e => e.title))"
    )
    gradients, weights, products = (np.array([number(text) for text in row]) for row in tab.run(cells))
    dy, weight = arrays[nodes[1]["dy"]], arrays[nodes[1]["weight"]]
    np.testing.assert_allclose(gradients, dy[k, i - 1 : i + 2, j - 1 : j + 2].ravel(), rtol=1e-6)
    np.testing.assert_allclose(weights, weight[k, c, ::-1, ::-1].ravel(), rtol=1e-6)
    np.testing.assert_allclose(products, gradients * weights, rtol=1e-6)
    assert "turned by 180°" in tab.run("document.querySelectorAll('.numbers figcaption')[1].textContent")


# How many pixels of each card's pictures are painted.
PAINTED = """[...document.querySelectorAll(".card canvas")].filter(c => !c.hidden).map(c => {
    const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
    return data.filter((part, place) => place % 4 === 3 && part > 0).length; })"""


def test_all_is_drawn_before_the_page_is_printed(tab: Chromium, page_of: Callable[[str], Path]) -> None:
    tab.open(page_of("resnet20"), dark=True)
    ground = "getComputedStyle(document.documentElement).getPropertyValue('--zero')"
    count = len(tab.run(PAINTED))
    assert 0 in tab.run(PAINTED)  # those far below are not drawn yet
    tab.run(f"""(() => {{
        window.seen = [];
        addEventListener("beforeprint", () => seen.push({PAINTED}.filter(c => c > 0).length, {ground}));
        addEventListener("afterprint", () => seen.push({ground}));
    }})()""")
    pages = base64.b64decode(tab.call("Page.printToPDF", printBackground=True)["data"])
    assert pages.startswith(b"%PDF")
    tab.wait_for("seen.length === 3")
    assert tab.run("seen") == [count, "#ffffff", "#10151c"]
    assert not tab.run("document.documentElement.hasAttribute('data-print')")


def test_cards_say_how_to_see_the_channels_that_do_not_fit(tab: Chromium, page_of: Callable[[str], Path]) -> None:
    tab.open(page_of("small"))
    words = "document.querySelector('.card[data-node=\"9\"] .more').textContent"
    assert re.fullmatch(r"\d+ of 128 channels shown here; open the layer to see all", tab.run(words))


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


def test_a_film_says_which_image_its_maps_are_of_and_shows_it_beside_them(tab: Chromium, tmp_path: Path) -> None:
    model, subject = bundled("small")
    arrays = {
        "steps": np.array([0, 5]),
        "filters": np.ones((2, 4, 3, 3, 3), np.float32),
        "maps": np.ones((2, 2, 9, 9), np.float32),
        "image": subject.image,
    }
    page = tmp_path / "film.html"
    for layer, figures in (("1", [1, 2, 2, 1, 1]), ("4", [1, 1, 1, 1, 1, 1, 1])):  # maps of these filters, or of others
        about = {"of": "validation image 0 of shapes", "layer": layer, "kind": "batch_norm + relu"}
        content = show_page(model, CrossEntropy(), subject, snapshots=Checkpoint(arrays, about))
        page.write_text(content, encoding="utf-8")
        tab.open(page)
        words = tab.run("document.querySelector('.film p').textContent")
        assert words.endswith(
            "after batch_norm + relu, of validation image 0 of shapes. From before the first step to the end."
        )
        found = tab.run("[...document.querySelectorAll('.film figure')].map(e => e.querySelectorAll('canvas').length)")
        assert sorted(found) == sorted(figures)
        pixels = "[...document.querySelector('.film .of canvas').getContext('2d').getImageData(0, 0, 32, 32).data]"
        shown_image = np.array(tab.run(pixels)).reshape(32, 32, 4)[..., :3]
        np.testing.assert_array_equal(shown_image, subject.image)
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
    (numbers,) = NUMBERS.findall(text)
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
