"""Records: what is kept of every trial, on disk and as a data frame."""
