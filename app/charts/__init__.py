"""Charts: pure functions from a result to an Altair chart. Nothing here knows Streamlit or torch."""
