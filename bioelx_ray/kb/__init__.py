"""The knowledge base: readers, one normalisation, merging, the artifact."""
