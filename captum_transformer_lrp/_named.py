"""What all methods answer alike where Captum asks."""

from __future__ import annotations

from typing import Any, ClassVar

from .description import Description
from .errors import TraceError


class Named:
    """A method with a name of its own, and without futures; before Captum's base.

    Attributes:
        name (str): what :meth:`get_name` returns; Captum would take the class name
            apart, "Attn L R P".
        description (Description): what its scores are, and what it needs.
    """

    name: ClassVar[str]
    description: Description = Description()

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the method."""
        return cls.name

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the scores are in units of the model's score."""
        return type(self).description.measure == "relevance"

    def has_convergence_delta(self) -> bool:
        """Whether the scores should sum to a difference of the model's score."""
        return type(self).description.conserves == "difference"

    def notes_on(self, scores: Any, delta: float | None) -> tuple[str, ...]:
        """Return what a reader of one input's scores, an array, should know."""
        return ()

    def trace(self, *arguments: Any, **options: Any) -> Any:
        """Return what every operator received and passed on, where rules decide that.

        Raises:
            TraceError: always, here: by methods that no rules make.
        """
        raise TraceError(
            f"{type(self).__name__} has no trace: {self.get_name()} hands nothing on "
            "from operator to operator by rules. Trace a method of rules, such as "
            "AttnLRP(model)."
        )

    def attribute_future(self) -> None:
        """Not implemented, as for Captum's LRP.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            f"attribute_future is not implemented for {self.get_name()}; call "
            "attribute."
        )
