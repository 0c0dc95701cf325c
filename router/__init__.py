"""Chooses a deployment for a model's public name and sees the generation through."""
