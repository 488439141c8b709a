"""Entry point of the command ``cnnlite`` and of ``python -m cnnlite``."""

import signal


def main() -> None:
    """Let Ctrl-C end the program without a traceback from the start; signals are handled once a command runs."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cnnlite.cli import main as run

    run()


if __name__ == "__main__":
    main()
