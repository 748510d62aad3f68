"""Results of a sweep, read without Ray, and without torch where no tensor is needed."""
