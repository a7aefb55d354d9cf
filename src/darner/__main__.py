"""`python -m darner` is the `darner` command."""

from darner.app.cli import main

if __name__ == "__main__":
    main()
