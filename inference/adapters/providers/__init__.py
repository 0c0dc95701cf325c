"""Providers behind HTTP interfaces, as engines that take messages."""
