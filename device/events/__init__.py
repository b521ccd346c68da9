"""Events: what happened at a site, kept for pages, questions and other systems to read."""
