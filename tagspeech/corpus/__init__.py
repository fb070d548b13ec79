"""A corpus to manifests and utterance groups; what of it cannot be used."""
