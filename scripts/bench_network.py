#!/usr/bin/env python3
"""Check the model of docs/distributed.md: two ranks on emulated hosts, with less and less bandwidth and more delay.

    .venv/bin/python scripts/bench_network.py [CONFIG ...] [--link 1000:0.1 --link 100:2 ...]

Latency and bandwidth that the model is told are those of the link; what messages cost beside them (software, and the
switch that emulates the network) is measured once, on links without limits. Needs Linux, root, `ip` and mpi4py.
"""

from collections.abc import Iterator
from pathlib import Path

import click
from bench_scaling import ALONE, OUT, PAIR, Found, Rounds, costs_of, launch, middle
from parts.emulated_hosts import Link, hosts
from parts.markdown import write
from parts.scaling_model import Network

MARKS = ("<!-- emulated network -->", "<!-- end of emulated network -->")
VARIABLES = {"MPIR_CVAR_NOLOCAL": "1", "UCX_TLS": "tcp,self"}
"""Let MPICH believe that ranks are on different hosts."""


def base(found: Found) -> Network:
    """Return the seconds of a small sum, and of each byte of a large one, on links without limits."""
    latency, size = found["sums"]["16"], 2**24
    return latency, max(0.0, found["sums"][str(size)] - 2 * latency - size * found["adding"]) / size


def over(link: Link, name: str, batch: int, seconds: float) -> Found:
    """Return the measurement of two ranks on hosts with such links."""
    with hosts(2, link) as commands:
        return launch(2, name, batch, 1, seconds, hosts=commands, variables=VARIABLES)


def lines(name: str, batch: int, links: list[Link], rounds: int, seconds: float) -> Iterator[str]:
    """Yield a table for a network: step times predicted by the model and measured, for each link."""
    free = Link()
    found: Rounds = {ALONE: [], f"{ALONE}, half batch": [], PAIR: []}
    measured: dict[Link, list[Found]] = {link: [] for link in links}
    for _ in range(rounds):
        found[ALONE].append(launch(1, name, batch, 1, seconds))
        found[f"{ALONE}, half batch"].append(launch(1, name, batch // 2, 1, seconds))
        found[PAIR].append(over(free, name, batch, seconds))
        for link in links:
            measured[link].append(over(link, name, batch, seconds))
    costs = costs_of(found, ALONE)
    latency, per_byte = base(middle(found[PAIR]))
    yield f"`{name}`, batch {batch}, two ranks of one thread; without limits a small sum takes {latency * 1e6:,.0f} us,"
    yield f"and large ones {1e-9 / max(per_byte, 1e-12):,.2f} GB/s. Medians of {rounds} rounds, ms a step:"
    yield ""
    yield "| Mbit/s | delay ms | computing | gradients | small sums | model | measured | model is off by |"
    yield "|---|---|---|---|---|---|---|---|"
    for link in [free, *links]:
        network = latency + link.delay, 1 / max(1e-12, per_byte, 1 / link.bandwidth)
        parts = [costs.compute(2, batch), costs.gradients(2, network), costs.small(2, network)]
        took = float(middle(measured.get(link) or found[PAIR])["seconds"])
        rate = "no limit" if link == free else f"{link.bandwidth * 8e-6:,.0f}"
        cells = [rate, f"{link.delay * 1e3:g}", *(f"{part * 1e3:,.1f}" for part in [*parts, sum(parts), took])]
        yield f"| {' | '.join(cells)} | {sum(parts) / took - 1:+.1%} |"


def _link(text: str) -> Link:
    rate, _, delay = text.partition(":")
    return Link(float(rate) * 1e6 / 8, float(delay or 0) / 1e3)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("configs", nargs=-1)
@click.option("--link", "texts", multiple=True, default=("1000:0", "200:0", "1000:2"), show_default=True)
@click.option("--batch-size", type=click.IntRange(4), default=128, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--seconds", type=float, default=4.0, show_default=True, help="Seconds of steps per link and round.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT)
def main(
    configs: tuple[str, ...], texts: tuple[str, ...], batch_size: int, rounds: int, seconds: float, out: Path
) -> None:
    """Measure CONFIGS (vgg11 and resnet20 if left out) on links of MBIT_PER_SECOND:DELAY_MS, print, write to --out."""
    links = [_link(text) for text in texts]
    tables = ["\n".join(lines(name, batch_size, links, rounds, seconds)) for name in configs or ("vgg11", "resnet20")]
    click.echo("\n\n".join(tables))
    write(out, "\n\n".join(tables), MARKS)


if __name__ == "__main__":
    main()
