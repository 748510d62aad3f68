"""Read, check and resolve sweep files."""
