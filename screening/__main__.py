"""`python -m screening` is the command `assay`."""

from screening.cli import main

if __name__ == "__main__":
    main()
