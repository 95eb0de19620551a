"""LIBERO on the real simulator, as a gymnasium environment; knows no policy."""
