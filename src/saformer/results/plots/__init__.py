"""Figures for print, made from run folders: what they show stands in docs/figures.md."""
