"""Pages, a folder each: ``page.render()`` composes views, widgets and charts; none imports torch.

A page's address is its folder's name, apart from those in ``FOLDERS``, which people have kept links to.
"""

FOLDERS = {"stationary": "curvature", "escape": "saddles"}
