"""`python -m cryostore` is `cryo`."""

from cryostore.cli import main

if __name__ == "__main__":
    main()
