"""Sections of a report, each with its pictures and a sentence or two on how to read them."""

from collections.abc import Sequence

import numpy as np

from cnnlite.data import Images
from cnnlite.nn.filters import first_filters
from cnnlite.runs.scores import balanced_accuracy, class_figures, macro_f1, wilson
from cnnlite.tools.report import charts, tiles
from cnnlite.tools.report.behaviour import Behaviour, calibration, confident_mistakes
from cnnlite.tools.report.inside import feature_stages, occlude, one_by_one
from cnnlite.tools.report.page import Page, cards, figure, grid, note, table
from cnnlite.tools.report.record import BestNetwork, Record, Seen
from cnnlite.tools.report.rules import Finding
from cnnlite.utils.hints import Argument
from cnnlite.utils.png import png
from cnnlite.utils.text import duration, percent
from cnnlite.utils.types import Array

_MISTAKES = 24
_OCCLUDED = 6
_FOLLOWED = 3


def overview(page: Page, record: Record) -> None:
    """Add the main results of a run."""
    result, last = record.result, record.rows[-1] if record.rows else {}
    best = max(record.values("validation_accuracy"), default=None)
    seconds = last.get("seconds")
    items = [
        ("test accuracy", percent(result.get("test_accuracy"))),
        ("best validation accuracy", percent(result.get("best_validation_accuracy") or best)),
        ("status", record.status),
        ("steps", f"{last.get('step') or result.get('steps') or 0:,.0f}"),
        ("epochs", f"{last.get('epoch') or 0:.4g}"),
        ("training time", "-" if seconds is None else duration(seconds)),
        ("seed", str(record.config.seed)),
    ]
    if result.get("test_macro_f1") is not None:
        items.insert(1, ("test macro F1", percent(result["test_macro_f1"])))
    if "parameters" in result:
        items.append(("parameters", f"{result['parameters']:,}"))
    page.add(cards(items))


def findings(page: Page, found: Sequence[Finding]) -> None:
    """Add the findings of ``cnnlite explain``."""
    page.section("What the curves say")
    page.add(f"<p>Rules with fixed thresholds; <code>cnnlite explain {Argument('rules')}</code> lists them.</p>")
    boxes = (note(item.title, item.text, item.command, kind="act" if item.command else "") for item in found)
    page.add(f'<div class="notes">{"".join(boxes)}</div>')


def curves(page: Page, record: Record) -> None:
    """Add the curves of loss, accuracy and learning rate."""
    page.section("Curves")
    losses, accuracies = record.values("validation_loss"), record.values("validation_accuracy")
    ends = f" It ends with a validation loss of {losses[-1]:.3f}." if losses else ""
    rises = f" It ends with {accuracies[-1]:.1%} of the validation images right." if accuracies else ""
    pictures = [
        (
            "loss",
            charts.curve_chart(record, "loss"),
            f"Loss over the epochs.{ends}",
            "The number that training makes small. While both lines fall, the network learns something that holds "
            "for new images too; where the validation line turns up, it begins to learn its training images by "
            "heart.",
        ),
        (
            "accuracy",
            charts.curve_chart(record, "accuracy"),
            f"Accuracy over the epochs.{rises}",
            "The fraction of images called by their right name. Training figures are means over the steps since the "
            "point before, on augmented images, so early on they lie below those of validation.",
        ),
        (
            "learning-rate",
            charts.lr_chart(record),
            "Learning rate over the epochs.",
            "How long the steps are. Long ones cross the landscape quickly; short ones at the end settle in a "
            "valley, which is why accuracy often rises most there.",
        ),
    ]
    page.add(
        grid(figure(page.image(f"{name}.svg", chart.svg().encode(), alt), say) for name, chart, alt, say in pictures)
    )


def by_class(page: Page, seen: Behaviour, split: str, classes: Sequence[str]) -> None:
    """Add the confusion matrix and the table of classes."""
    counts, total = seen.counts, len(seen.labels)
    low, high = wilson(int(counts.trace()), total)
    page.section(
        "Class by class",
        f"Of the {total:,} {split} images, {seen.accuracy:.1%} are called right; of any number of such images it would "
        f"be {low:.1%} to {high:.1%} (95 % interval of Wilson). If all classes count alike, however many images they "
        f"have: balanced accuracy {percent(balanced_accuracy(counts))}, macro F1 {percent(macro_f1(counts))}.",
    )
    chart = charts.confusion_chart(seen.counts, classes)
    rows = class_figures(seen.counts, classes)
    worst = min((row for row in rows if row.recall is not None), key=lambda row: row.recall or 0)
    alt = (
        f"Confusion matrix of {len(classes)} classes; least often right is {worst.name}, with {percent(worst.recall)}."
    )
    caption = (
        "A row for each true class, a column for each predicted one. The diagonal is right; a dark field beside it "
        "is a pair that the network mixes up, such as cats and dogs. Shades are square roots, so that rare "
        "confusions show."
    )
    picture = figure(page.image("confusion.svg", chart.svg().encode(), alt), caption, scrolls=True)
    header = ("class", "images", "accuracy", "precision", "F1", "often taken for")
    cells = (
        (
            row.name,
            f"{row.images:,}",
            percent(row.recall),
            percent(row.precision),
            percent(row.f1),
            f"{row.mistaken_for} ({row.mistaken:,})" if row.mistaken else "",
        )
        for row in rows
    )
    meaning = (
        '<p class="soft">Accuracy (recall): of the images of the class, how many were found. Precision: of the images '
        "called so, how many are. F1: their harmonic mean. Balanced accuracy is the mean of the accuracies, macro F1 "
        "that of the F1s.</p>"
    )
    page.add(grid([picture, f"<div>{table(header, cells, text=[5])}{meaning}</div>"]))


def mistakes(page: Page, seen: Behaviour, images: Images, split: str, classes: Sequence[str]) -> None:
    """Add a gallery of the most confident mistakes."""
    chosen = confident_mistakes(seen, _MISTAKES)
    page.section("The most confident mistakes")
    if not len(chosen):
        page.add(f"<p>There are none: all {split} images are called right.</p>")
        return
    page.add(
        f"<p>The {len(chosen)} {split} images that the network was most sure of, and wrong about. Some are hard for "
        "people too, some show what it looks at instead of the thing, and some are labelled wrongly.</p>"
    )
    boxes, pictures = [], []
    for index in chosen:
        true, called = classes[seen.labels[index]], classes[seen.predictions[index]]
        pictures.append(tiles.rgb(images.images[index]))
        alt = f"An image of class {true} that was called {called}"
        image = page.image(f"mistake-{index}.png", png(pictures[-1]), alt, keep=False)
        boxes.append(figure(image, f"{true}, called {called} ({seen.confidences[index]:.0%})"))
    page.add(grid(boxes, "tiles"))
    page.files["mistakes.png"] = png(tiles.mosaic([tiles.enlarge(picture) for picture in pictures], 6))


def trust(page: Page, seen: Behaviour) -> None:
    """Add the reliability diagram and the calibration error."""
    found = calibration(seen)
    page.section("How far to trust its confidence")
    leaning = "too sure of itself" if found.excess > 0 else "less sure than it could be"
    caption = (
        "Images are sorted by how sure the network is; each bar is the fraction of such images it got right. Bars "
        f"below the line mean too much confidence, bars above it too little. Here the network is {leaning}, by "
        f"{100 * abs(found.excess):.1f} points on average; label smoothing and short trainings lean to the cautious "
        "side."
    )
    alt = f"Reliability diagram in {len(found.counts)} bins; the expected calibration error is {found.error:.1%}."
    numbers = cards(
        [
            ("expected calibration error", f"{found.error:.1%}"),
            ("mean confidence", percent(float(seen.confidences.mean()))),
            ("accuracy", percent(seen.accuracy)),
        ]
    )
    source = (
        '<p class="soft">Expected calibration error: the mean distance of bars and line, weighted by the images in '
        f"each of {len(found.counts)} bins (Naeini, Cooper &amp; Hauskrecht 2015; Guo et al. 2017, "
        "arXiv:1706.04599).</p>"
    )
    picture = figure(page.image("calibration.svg", charts.calibration_chart(found).svg().encode(), alt), caption)
    page.add(grid([picture, f"<div>{numbers}{source}</div>"]))


def filters(page: Page, trained: BestNetwork) -> str:
    """Add the filters of the first layer; return the reason if they are left out, else an empty string."""
    found = first_filters(trained.network)
    if isinstance(found, str):
        return f"first-layer filters: {found}"
    count, height, width, _ = found.weights.shape
    shown = min(count, tiles.MOST_FILTERS)
    page.section("What the first layer looks for")
    what = (
        f"The {shown} filters of {found.place}"
        if shown == count
        else f"{shown} of the {count} filters of {found.place}"
    )
    caption = (
        f"{what}, {height} by {width} pixels; middle grey is 0. A filter answers where the image looks like it. "
        "After training some show edges in various directions, others blobs of opposite colours; pure noise would "
        "mean that the layer has learnt little."
    )
    if found.whole:
        caption = (
            f"{what}: it is fully connected, so each is as large as the image, a template that the image is compared "
            "with. Without convolution a thing has to stand where the template has it."
        )
    image = page.image("filters.png", png(tiles.filters_picture(found)), f"{what} as small colour pictures")
    page.add(figure(image, caption, scrolls=True))
    return ""


def features(page: Page, trained: BestNetwork, seen: Seen) -> str:
    """Add feature maps of a few images; return the reason if they are left out, else an empty string."""
    images = seen.images.take(examples(seen.images.labels, trained.network.at_once(_FOLLOWED)))
    network = one_by_one(trained.network, trained.config)
    stages = feature_stages(network, trained.normalizer(images.images))
    if not stages:
        return "feature maps: the network has no layer whose output is an image"
    names = ", ".join(trained.classes[label] for label in images.labels)
    page.section(
        "From edges to concepts",
        f"The way of {len(images)} {seen.split} images ({names}) through the network: each row begins with the "
        "image, then shows a few channels of a layer, bright where they answer.",
    )
    for number, stage in enumerate(stages):
        height, width, channels = stage.shape
        caption = (
            f"{stage.place}: {height} by {width} pixels, {channels} channels, {len(stage.channels)} of them shown. "
            f"{_what_a_layer_sees(number, len(stages))}"
        )
        alt = f"Maps of {len(stage.channels)} channels after {stage.place} for {len(images)} images"
        image = page.image(f"features-{number + 1}.png", png(tiles.stage_picture(stage, list(images.images))), alt)
        page.add(figure(image, caption, scrolls=True))
    return ""


def _what_a_layer_sees(number: int, count: int) -> str:
    if number == 0:
        return "Early channels answer to edges, colours and brightness, and the things can still be made out."
    if number == count - 1:
        return (
            "Late channels answer to whole parts of a thing and hardly care where it is: few bright fields are "
            "left, and they differ from class to class. The last layer only has to weigh them."
        )
    return "Channels in the middle put edges together: corners, textures, simple shapes."


def occlusion(page: Page, trained: BestNetwork, seen: Seen) -> None:
    """Add occlusion maps: the parts of a few images that the predictions need."""
    images = seen.images.take(examples(seen.images.labels, _OCCLUDED))
    page.section(
        "Where it looks",
        "A grey patch covers one part of the image after the other. Where the probability of the prediction falls "
        "most, the right picture stays bright: these places the network needs (Zeiler & Fergus 2013, "
        "arXiv:1311.2901).",
    )
    boxes = []
    for number, (raw, label) in enumerate(zip(images.images, images.labels, strict=True), 1):
        found = occlude(trained.network, trained.normalizer(raw[None])[0])
        true, called = trained.classes[label], trained.classes[found.prediction]
        verdict = f"{called}, {found.probability:.0%} sure" + (", rightly" if true == called else f", but it is {true}")
        picture = png(tiles.occlusion_picture(raw, found))
        alt = f"An image of class {true}, and beside it the parts that its prediction needs"
        boxes.append(figure(page.image(f"occlusion-{number}.png", picture, alt), f"{verdict}; {_needs(found.drop)}"))
    page.add(grid(boxes))


def _needs(drop: Array) -> str:
    if drop.max() < 0.01:
        return "no single patch changes that."
    return f"the worst patch takes {100 * float(drop.max()):.0f} points of that."


def examples(labels: Array, count: int) -> Array:
    """Return the index of the first image of each of ``count`` classes, spread over all classes."""
    _, first = np.unique(labels, return_index=True)
    chosen: Array = first[np.unique(np.linspace(0, len(first) - 1, min(count, len(first))).astype(int))]
    return chosen
