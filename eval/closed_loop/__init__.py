"""Episodes in closed loop: who runs them, in what order, and what is kept of each."""
