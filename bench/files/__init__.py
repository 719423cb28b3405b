"""Files: written whole or not at all, fetched and verified, and source code as data."""
