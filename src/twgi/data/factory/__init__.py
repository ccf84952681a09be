"""Chains made by a teacher: models behind endpoints, or the icon world."""
