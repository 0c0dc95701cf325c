"""Plumbing that every service shares. It holds no domain words: no models, prompts, tokens or prices."""
