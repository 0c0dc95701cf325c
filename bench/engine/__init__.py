"""Tokens a second of the torch engine beside llama.cpp and transformers: `python -m bench.engine`."""
