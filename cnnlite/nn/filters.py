"""First filters of a network: weights that are applied to the pixels themselves, and so can be looked at."""

from dataclasses import dataclass

from cnnlite.nn.network import Network
from cnnlite.utils.types import Array


@dataclass(frozen=True)
class Filters:
    """Weights of the first layer."""

    place: str
    weights: Array
    """(filters, height, width, channels), with one or three channels."""
    whole: bool
    """True if a filter covers the whole image: the layer is fully connected."""


def first_filters(network: Network) -> Filters | str:
    """Return the filters applied to the pixels themselves, or the reason they cannot be shown."""
    height, width, channels = network.in_shape
    if channels not in (1, 3):
        return f"the images have {channels} channels, which are not colours"
    for _, layer in network.model.walk():
        weight = {**layer.buffers, **layer.params}.get("weight")  # filters for whitening are not trained
        if weight is None or weight.ndim not in (2, 4):
            continue
        if weight.ndim == 4:
            if weight.shape[2] != channels:
                return f"the first convolution sees {weight.shape[2]} channels, not pixels"
            return Filters(layer.path, weight.transpose(3, 0, 1, 2), False)
        if len(weight) != height * width * channels:
            return "the first layer with weights does not see the pixels one by one"
        return Filters(layer.path, weight.T.reshape(-1, height, width, channels), True)
    return "the network has neither a convolution nor a linear layer"
