"""`python -m ftagent` is `ftagent`."""

from ftagent.cli import main

if __name__ == "__main__":
    main()
