"""``python -m bioelx_ray.cli``: the same as `bioelx`."""

from bioelx_ray.cli import main

main()
