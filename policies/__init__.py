"""Policies behind one protocol, and the recipe of the reference policy."""
