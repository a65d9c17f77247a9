"""A trained network as files that need none of this package: torch.export and NIR.

`program` writes the whole network as one program of PyTorch, `chains` says which of its layers NIR
can express, `nir` writes those, `replay` runs what was written, and `commands` is the command line.
"""
