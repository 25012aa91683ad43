"""Figures: each a function of the tidy frame."""
