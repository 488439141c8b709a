"""Export to ONNX, checked with onnxruntime. The only package that imports onnx and onnxruntime."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnlite import __version__
from cnnlite.data import load_dataset
from cnnlite.errors import CnnliteError, ConfigError, require
from cnnlite.nn.losses import softmax
from cnnlite.nn.memory import images_at_once
from cnnlite.runtime import engine
from cnnlite.tools.onnx import nodes as _nodes  # registers the exporters
from cnnlite.tools.onnx.graph import Graph, exporters
from cnnlite.tools.predict import Model
from cnnlite.utils.files import refuse_existing, write_files
from cnnlite.utils.types import Array

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Difference", "compare", "export", "exporters", "to_onnx"]

del _nodes

OPSET = 17
IR_VERSION = 8
"""File format that came with the opset, so that whoever reads one reads the other."""
LARGEST = 2**31 - 2**20
"""Largest size of the parameters in bytes, leaving space for names: protocol buffers end at 2 GiB."""
TOLERANCE = 1e-3
"""Largest difference of probabilities that float32 rounding explains."""
_IMAGES = 256


@dataclass(frozen=True)
class Difference:
    """Largest differences between the exported model and the network, over some images."""

    images: str
    logits: float
    probabilities: float
    other_classes: int
    """Number of images with another most probable class."""


def export(checkpoint: Path, out: Path, *, root: str | None = None, force: bool = False) -> tuple[int, str]:
    """Write the network of a checkpoint as an ONNX file.

    ``root`` overrides the folder of the dataset, whose images are used for the check; ``force`` allows ``out`` to
    exist.

    Returns:
        The size in bytes, and a description of the check.

    Raises:
        ConfigError: If ``out`` exists, onnx is not installed, or a layer cannot be exported.
        CheckpointError: If the checkpoint cannot be loaded.
        StorageError: If the file cannot be written.
    """
    refuse_existing([out], force=force, source=checkpoint)
    model = Model.load(checkpoint)
    content = to_onnx(model).SerializeToString()
    difference = compare(model, content, root)
    if difference and difference.probabilities > TOLERANCE:
        raise RuntimeError(f"the exported model differs from the network: {difference}")
    write_files({out: content}, force=force)
    return len(content), _describe(difference)


def to_onnx(model: Model) -> "ModelProto":
    """Convert a network to an ONNX model, with normalization before and softmax after it.

    Input ``image``: uint8 (N, H, W, C), any N. Outputs ``logits`` and ``probabilities``: float32 (N, classes). Metadata
    properties, in JSON: ``classes``, a list of their names, and the resizing of pictures, as in `Frame`: ``size``,
    height and width; ``resize``, pixels of the shorter side; ``stretch``. Views (test-time augmentation) are not
    included.
    """
    require("exporting to ONNX", "onnx", "onnx")
    import onnx
    from onnx import TensorProto, helper

    _refuse_too_large(model)
    graph = Graph()
    x = _preprocessed(graph, model)
    logits = graph.layer(model.network.model, x, "")
    graph.nodes += [
        helper.make_node("Identity", [logits], ["logits"], name="logits"),
        helper.make_node("Softmax", ["logits"], ["probabilities"], name="probabilities", axis=1),
    ]
    count = len(model.classes)
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            model.config.name or "cnnlite",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", *model.image_shape])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", count])
                for name in ("logits", "probabilities")
            ],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="cnnlite",
        producer_version=__version__,
    )
    frame = model.frame
    facts = {
        "classes": model.classes,
        "size": (frame.height, frame.width),
        "resize": frame.shorter or min(frame.height, frame.width),
        "stretch": frame.stretch,
        "channels": model.network.in_shape[2],
    }
    helper.set_model_props(made, {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()})
    onnx.checker.check_model(made, full_check=True)
    return made


def _refuse_too_large(model: Model) -> None:
    size = sum(array.nbytes for array in model.network.state().values())
    if size > LARGEST:
        raise ConfigError(f"the parameters have {size / 2**30:.1f} GiB; an ONNX file cannot hold more than 2")


def _preprocessed(graph: Graph, model: Model) -> str:
    """Add the nodes from ``image`` to the network's input: cropped, normalized, channels first."""
    from onnx import TensorProto

    x = "image"
    if model.crop is not None:
        height, width, _ = model.image_shape
        first = [(height - model.crop) // 2, (width - model.crop) // 2]
        ends = {"first": first, "end": [side + model.crop for side in first], "axes": [1, 2]}
        x = graph.add("Slice", x, *(graph.constant(f"crop.{key}", value) for key, value in ends.items()), name="crop")
    x = graph.add("Cast", x, name="normalize", to=TensorProto.FLOAT)
    mean, std = (array.astype(np.float64) for array in (model.normalizer.mean, model.normalizer.std))
    x = graph.add("Mul", x, graph.constant("normalize.scale", 1 / std), name="normalize")
    x = graph.add("Add", x, graph.constant("normalize.shift", -mean / std), name="normalize")
    return graph.add("Transpose", x, name="normalize", perm=(0, 3, 1, 2))


def compare(model: Model, content: bytes, root: str | None = None) -> Difference | None:
    """Run the ONNX model ``content`` on test images, or on noise if there are none; None without onnxruntime."""
    try:
        import onnxruntime
    except ImportError:
        return None
    images, name = _images(model, root)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = engine.threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    theirs, probabilities = session.run(["logits", "probabilities"], {"image": images})
    ours = model.logits(images, "none")
    return Difference(
        images=f"{len(images)} {name}",
        logits=float(np.abs(theirs - ours).max()),
        probabilities=float(np.abs(probabilities - softmax(ours)).max()),
        other_classes=int(np.count_nonzero(theirs.argmax(axis=1) != ours.argmax(axis=1))),
    )


def _images(model: Model, root: str | None) -> tuple[Array, str]:
    data, count = model.config.data, images_at_once(_IMAGES, model.image_shape, model.network.model)
    try:
        source = data.dataset.reading_only(model.classes)  # the config came with the checkpoint: untrusted
        dataset = load_dataset(source, Path(data.root if root is None else root), validation="none")
        if dataset.test.images.shape[1:] == model.image_shape:
            return np.asarray(dataset.test.images[:count]), f"test images of {dataset.name}"
        reason = f"those of {dataset.name} here have another size"
    except (CnnliteError, OSError):
        reason = "the dataset cannot be read here"
    noise = np.random.default_rng(0).integers(0, 256, (count, *model.image_shape), np.uint8)
    return noise, f"images of noise, as {reason}"


def _describe(difference: Difference | None) -> str:
    if difference is None:
        return "not checked, as onnxruntime is not installed: pip install onnxruntime"
    same = "the same classes" if not difference.other_classes else f"{difference.other_classes} other classes"
    return (
        f"checked with onnxruntime on {difference.images}: largest difference {difference.logits:.1e} in logits, "
        f"{difference.probabilities:.1e} in probabilities; {same}"
    )
