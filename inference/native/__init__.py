"""The CPU kernels: one forward step of a model in C++, built by `python -m inference.native.build`."""
