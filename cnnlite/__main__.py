"""Lets ``python -m cnnlite`` do what the command ``cnnlite`` does."""

from cnnlite.cli import main

if __name__ == "__main__":
    main()
