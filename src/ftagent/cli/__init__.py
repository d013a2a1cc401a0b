"""The command line. `main` is the console script."""


def main() -> None:
    """Run the command line."""
    raise SystemExit(2)
