"""Models as nodes: those that a plan chose are run, links predict the others."""
