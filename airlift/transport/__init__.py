"""Connections are opened here: HTTP with retries and Range, and the OCI distribution protocol on top of it."""
