"""`python -m jobs.cli`: the command of a submitted job."""

from jobs.cli.app import main

main()
