"""STAGE 2: decide between candidates, or for NIL.

::

    mention, candidates ─prompt─▶ engine ─log-probabilities─▶ scoring ─▶ calibration ─▶ Link

`ranker` has the protocol, `llm_ranker` puts the parts together. Read `prompt` (with `template`,
`window`, `card`, `plain`), `engine` (with `engines`), `asking` and `scoring`, then `calibration`
(with `fusion` and `curve`).
"""
