"""STAGE 2: decide between candidates, or for NIL."""
