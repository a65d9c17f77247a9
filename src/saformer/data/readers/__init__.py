"""Readers: one file a format; bytes in, arrays out."""
