"""`python -m tagspeech` is the command `tagspeech`."""

import sys

from tagspeech.cli import main

if __name__ == "__main__":
    sys.exit(main())
