"""One reader a kind of source: lines or bytes -> Concept, Alias, IdMapping, Retired."""
