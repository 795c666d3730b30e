"""Units to results: the actors, and the child processes that decode and label for them.

An actor's own process holds no models and no images of its own, so no image can crash it:

- `actors`: what Ray Data calls; `supervise`: the parents, which start children and find the rows that crash
  them; `settings`, `transfer`: what goes between the two sides.
- `children`: the functions that build each child's work, where torch is imported late, in the child.
- `labeller`, `decoder`, `profiler`: one file for what each kind of child does. They read with `reader`.

`usage` adds up what both sides take.
"""
