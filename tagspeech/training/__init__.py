"""Training: one loop, three tasks (semantic encoder, voice encoder, TagSpeech)."""
