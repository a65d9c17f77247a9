"""Commands that are not Hydra's, a file each; `saformer.cli` calls them."""
