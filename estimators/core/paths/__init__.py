"""Lines and curves between points, and their bends."""
