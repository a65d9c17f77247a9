"""Figures for print, made from run folders; docs/figures.md describes them."""
