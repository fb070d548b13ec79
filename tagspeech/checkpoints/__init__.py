"""Models and their parts on disk: our layout, the published one, downloads."""
