"""Folders and tables of images: decoded once a machine, then read where they lie."""
