"""Results for people: results.json, tables, the page, examples, plots, ablations."""
