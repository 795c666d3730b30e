"""`python -m raylabel`: the command, where its script is not on the PATH."""

from raylabel.command import main

if __name__ == "__main__":
    main()
