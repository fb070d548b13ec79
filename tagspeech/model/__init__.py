"""TagSpeech: projectors, anchors, the loss, and the model that connects them."""
