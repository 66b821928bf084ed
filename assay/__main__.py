"""`python -m assay` is the command `assay`."""

from assay.screening.commands.cli import main

if __name__ == "__main__":
    main()
