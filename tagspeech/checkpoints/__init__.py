"""Models and their parts as files: our layout, the published one, downloads."""
