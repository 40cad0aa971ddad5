"""HTTP/1.1 connections: parsing, exchanges, and sharing connections among workers."""
