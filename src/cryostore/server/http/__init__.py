"""HTTP/1.1 connections of clients, and how the workers of a server share them."""
