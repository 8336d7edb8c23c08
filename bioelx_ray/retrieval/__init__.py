"""STAGE 1: propose candidates for a mention."""
