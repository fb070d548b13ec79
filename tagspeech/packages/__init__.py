"""Models that lie in Python packages, as folders of safetensors."""
