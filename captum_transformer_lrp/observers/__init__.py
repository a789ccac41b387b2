"""What watches one pass of the engine, or reads off in it."""

from .observed import Applied, ObservedEngine, Observer, Run, copied, relevant

__all__ = ["Applied", "ObservedEngine", "Observer", "Run", "copied", "relevant"]
