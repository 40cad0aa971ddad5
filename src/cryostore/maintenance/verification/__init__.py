"""Check, scrub, repair, and the recovery points that damage affects."""
