"""Offline work on Ray: each job reads artifacts and files, and publishes the next artifact."""
