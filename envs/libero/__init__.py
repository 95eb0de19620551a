"""LIBERO on its real simulator: its tasks, the protocol of an episode, the environment."""
