"""Emulated hosts on one machine: network namespaces, joined by a switch with limited bandwidth and delay.

The switch is a process of its own that carries packets between one TUN device in each namespace. Unlike `tc`, it needs
no module of the kernel for delays. Needs Linux, root and `ip` (iproute2).
"""

import contextlib
import fcntl
import heapq
import itertools
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
MTU = 9000
"""Largest packet in bytes: jumbo frames, which leave the switch time for other things."""
_NETWORK = "10.77.0."
_HEADER = 20


@dataclass(frozen=True)
class Link:
    """Connection of a host with the switch."""

    bandwidth: float = float("inf")
    """Bytes per second that a host can send."""
    delay: float = 0.0
    """Seconds from one host to another."""


@contextlib.contextmanager
def hosts(count: int, link: Link) -> Iterator[list[list[str]]]:
    """Yield one command prefix per host, which runs a command on it; the hosts exist inside the block."""
    names = [f"cnnlite-{os.getpid()}-{index}" for index in range(count)]
    with contextlib.ExitStack() as stack:
        ports = []
        for index, name in enumerate(names):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
            ports.append(port := _port(name))
            stack.callback(os.close, port)
            _ip("link", "set", name[-15:], "netns", name)
            _ip("-n", name, "address", "add", f"{_NETWORK}{index + 1}/24", "dev", name[-15:])
            for device in (name[-15:], "lo"):
                _ip("-n", name, "link", "set", device, "up")
        numbers = [link.bandwidth, link.delay, *ports]
        switch = subprocess.Popen([sys.executable, __file__, *map(str, numbers)], pass_fds=ports)  # noqa: S603 - ours
        stack.callback(switch.wait)
        stack.callback(switch.kill)
        yield [["ip", "netns", "exec", name] for name in names]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)  # noqa: S603, S607 - iproute2


def _port(name: str) -> int:
    """Return a TUN device: bytes written to the descriptor come out of it, bytes sent into it can be read."""
    port = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(port, _TUNSETIFF, struct.pack("16sH", name[-15:].encode(), _IFF_TUN | _IFF_NO_PI))
    _ip("link", "set", name[-15:], "mtu", str(MTU), "txqueuelen", "10000")
    return port


def carry(ports: list[int], link: Link) -> None:
    """Run the switch: hold every packet until its link has sent it and the delay is over."""
    number = itertools.count()
    on_the_way: list[tuple[float, int, int, bytes]] = []
    free = [0.0] * len(ports)
    poll = select.poll()
    for port in ports:
        poll.register(port, select.POLLIN)
    while True:
        wait = None if not on_the_way else max(0.0, on_the_way[0][0] - time.monotonic()) * 1e3
        for port, _ in poll.poll(wait):
            source = ports.index(port)
            with contextlib.suppress(BlockingIOError):
                while packet := os.read(port, MTU):
                    target = packet[_HEADER - 1] - 1  # last byte of the destination address
                    if packet[0] >> 4 == 4 and 0 <= target < len(ports):
                        free[source] = max(time.monotonic(), free[source]) + len(packet) / link.bandwidth
                        heapq.heappush(on_the_way, (free[source] + link.delay, next(number), target, packet))
        now = time.monotonic()
        while on_the_way and on_the_way[0][0] <= now:
            *_, target, packet = heapq.heappop(on_the_way)
            with contextlib.suppress(BlockingIOError):  # the queue is full: the packet is lost, as on a real network
                os.write(ports[target], packet)


if __name__ == "__main__":
    bandwidth, delay, *descriptors = sys.argv[1:]
    carry([int(port) for port in descriptors], Link(float(bandwidth), float(delay)))
