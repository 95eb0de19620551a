"""`python -m policies.reference`: makes the reference policy anew."""

import tyro

from policies.reference.recipe import Recipe, make_reference_policy

if __name__ == "__main__":
    make_reference_policy(tyro.cli(Recipe))
