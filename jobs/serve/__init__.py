"""The search page of runs: a small web server, its pages and its answers for programs."""
