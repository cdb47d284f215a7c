"""Where facts come from: files or a live cluster, both giving the same Snapshot."""
