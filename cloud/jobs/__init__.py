"""Filters trained for devices that cannot: what is asked, in which turn, by which process.

* `routes`, `bodies`: over HTTP; `tasks`: what a training is, and its limits.
* `register`: the jobs in the database; `turns`: whose job is next, pure.
* `keeper`: starts, watches, ends and cleans; `training`: one process that is watched.
* `trainer`, `checkpoints`, `results`: that process; the only torch code here.
"""
