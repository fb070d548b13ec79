"""A corpus to manifests and utterance groups, with a list of what cannot be used."""
