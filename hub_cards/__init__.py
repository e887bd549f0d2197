"""Each Hub repository as it would be uploaded; see `audiobert.bundled`."""
