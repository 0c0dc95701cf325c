"""Triton kernels, each with the function that launches it. Their tests hold each to a few lines of torch."""
