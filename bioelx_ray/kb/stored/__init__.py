"""Large files as they are stored: plain or packed, split, damaged."""
