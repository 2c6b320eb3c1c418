"""`python -m facet`: the same as the program `facet`."""

from facet.cli import main

if __name__ == "__main__":
    main()
