"""Plots and pictures made from tables."""
