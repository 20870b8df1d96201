"""`python -m sizeup` and the `sizeup` command."""

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    import gc

    from sizeup.cli.main import run

    gc.set_threshold(200_000, 20, 20)  # a command makes many small objects and few cycles: a tenth of its time
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
