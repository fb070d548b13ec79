"""Presents results: results.json, tables, the HTML page, examples, plots, ablations."""
