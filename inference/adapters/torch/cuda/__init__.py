"""The model runner for CUDA devices: Triton kernels, CUDA graphs, and steps launched before the last one is read."""
