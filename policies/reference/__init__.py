"""The reference policy: a small SmolVLA trained from scratch on scripted demonstrations."""
