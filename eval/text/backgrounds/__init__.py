"""What LIBERO's cameras see, as pictures: text evaluations need no simulator."""
