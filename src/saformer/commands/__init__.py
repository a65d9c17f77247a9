"""Commands that do not run under Hydra, one file each; `saformer.cli` calls them."""
