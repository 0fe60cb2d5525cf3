"""The Loss Atlas app: a local Streamlit program that composes the estimators into pages."""
