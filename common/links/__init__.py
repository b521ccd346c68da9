"""Model links: predict one model's output from the outputs of others (thesis chapter 5).

`specs` says what a model's output is; everything else follows from it. `recorded` holds the
outputs of several models on the same inputs, `training` learns links and ensembles from them
(torch), `link` and `ensemble` run them in NumPy, `folder` writes and reads them.
"""
