"""Tokens a second and first-token times of the torch engine on a CUDA device, at the shapes of Llama 3 8B."""
