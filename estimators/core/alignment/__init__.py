"""Which units of two networks correspond, and how alike two networks are."""
