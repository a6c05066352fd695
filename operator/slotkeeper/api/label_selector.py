"""Label selectors, as those of Kubernetes' own resources."""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slotkeeper.api.placement import LABEL_KEY, LabelKey, LabelValue
from slotkeeper.api.validation import ApiModel, Rule

Operator = Annotated[
    Literal["In", "NotIn", "Exists", "DoesNotExist"], Field(json_schema_extra={"maxLength": 12})
]


class Requirement(ApiModel):
    """Requirement on one label, as in the matchExpressions of a label selector."""

    rules: ClassVar = (
        Rule(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            "values must be set if operator is In or NotIn, and must not be set otherwise",
            lambda one: (one.operator in {"In", "NotIn"}) == bool(one.values),
        ),
    )

    key: LabelKey
    """Key of the label. Example: team"""

    operator: Operator
    """Relation to values. In: the label has one of them. NotIn: it has none of them, or does not
    exist. Exists and DoesNotExist: whatever its value. Example: In"""

    values: Annotated[list[LabelValue], Field(max_length=32)] = Field(default_factory=list)
    """Values of the label, up to 32, for In and NotIn. Default: none. Example: [search, chat]"""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels meet the requirement."""
        if self.operator in {"Exists", "DoesNotExist"}:
            return (self.key in labels) == (self.operator == "Exists")
        return (labels.get(self.key) in self.values) == (self.operator == "In")


class LabelSelector(ApiModel):
    """Selects objects by their labels. An empty selector selects all."""

    match_labels: Annotated[
        dict[str, LabelValue],
        Field(max_length=32),
        Rule(
            f"self.all(name, name.matches(r'^(?:{LABEL_KEY})$'))",
            "must have label keys, such as team",
            lambda labels: all(re.fullmatch(LABEL_KEY, name, re.ASCII) for name in labels),
        ),
    ] = Field(default_factory=dict)
    """Labels that an object must have, up to 32. Default: none. Example: {team: search}"""

    match_expressions: Annotated[list[Requirement], Field(max_length=32)] = Field(
        default_factory=list
    )
    """Requirements that an object must meet, all of them, up to 32. Default: none.
    Example: [{key: tier, operator: NotIn, values: [test]}]"""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return self.match_labels.items() <= labels.items() and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )
