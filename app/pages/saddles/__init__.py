"""Saddle escape: how optimisers leave a saddle, and which never do."""
