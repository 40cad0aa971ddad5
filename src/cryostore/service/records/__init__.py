"""Records: the catalog written down beside the blobs, so that `cryo rebuild-catalog` can bring it back."""
