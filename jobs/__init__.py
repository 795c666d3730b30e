"""What decides, talks to Ray, or talks to a person: the command line, the pipeline, planning, reports."""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())  # else Python prints warnings by itself
