"""``python -m twgi`` is the command ``twgi``."""

from twgi.cli import main

if __name__ == "__main__":
    main()
