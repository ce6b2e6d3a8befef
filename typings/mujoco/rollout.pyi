# MuJoCo's classes and functions are compiled and carry no type information.
from typing import Any

def __getattr__(name: str) -> Any: ...
