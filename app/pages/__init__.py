"""Pages: each module's ``render()`` composes widgets and charts; none imports torch."""
