"""Adapters to and from other libraries' environment interfaces."""
