"""Drills: what is broken on purpose, under load, and judged."""
