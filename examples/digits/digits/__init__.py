"""Handwritten digits, learnt by sites that do not share them."""
