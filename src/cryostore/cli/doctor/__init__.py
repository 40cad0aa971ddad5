"""`cryo doctor`: its checks of this machine and of the connection to a server; prints those of a store."""
