"""Figures and pictures: how they look and how they become files."""
