"""Cross-lingual biomedical entity linking in two stages.

::

    kb ──▶ retrieval (STAGE 1: propose) ──Candidate──▶ ranking (STAGE 2: decide) ──▶ Link
"""

from bioelx_ray.records import Alias, Candidate, Concept, GoldMention, Link, Mention, mention_in

__all__ = ["Alias", "Candidate", "Concept", "GoldMention", "Link", "Mention", "mention_in"]
