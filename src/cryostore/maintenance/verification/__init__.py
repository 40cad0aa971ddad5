"""Check, scrub and repair of a store, and the recovery points that damage affects."""
