"""One reader a benchmark: files as their authors publish them -> GoldMention."""
