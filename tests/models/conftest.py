"""The stand-in Hub, for the tests that push merged models."""

from tests.hub.conftest import base, base_on_hub, hub

__all__ = ["base", "base_on_hub", "hub"]
