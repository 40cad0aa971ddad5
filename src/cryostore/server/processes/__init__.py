"""The processes of a server: one worker or several, and the supervisor that keeps several running."""
