"""`python -m jobs.cli`, as a submitted job is started."""

from jobs.cli.app import main

main()
