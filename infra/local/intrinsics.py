"""CloudFormation's intrinsic functions, resolved offline.

Only the functions and pseudo parameters that the template uses; anything else is an error that names it, because a
value that silently stays `{"Fn::...": ...}` would be found much later and far away.
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/intrinsic-function-reference.html
"""

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_PLACEHOLDER = re.compile(r"\$\{(!?)([^}]+)\}")
_NO_VALUE = "AWS::NoValue"


class TemplateError(Exception):
    """The template says something that cannot be applied here; the message names what and where."""


@dataclass(frozen=True, slots=True)
class Created:
    """A resource that exists: what `Ref` and `Fn::GetAtt` give for it.

    Attributes:
        ref: physical id, as `Ref` returns it.
        attributes: by name, as `Fn::GetAtt` returns them.
    """

    ref: str
    attributes: Mapping[str, str] = field(default_factory=dict)


class Resolver:
    """Resolves values against parameters, conditions and the resources that exist so far.

    Args:
        parameters: by name, pseudo parameters included.
        conditions: the template's Conditions section, unresolved.
        created: resources by logical id; filled while the template is applied.
    """

    def __init__(
        self, parameters: Mapping[str, str], conditions: Mapping[str, Any], created: Mapping[str, Created]
    ) -> None:
        self._parameters = parameters
        self._conditions = conditions
        self._created = created
        self._functions: Mapping[str, Callable[[Any], Any]] = {
            "Ref": self._ref,
            "Condition": self.condition,
            "Fn::GetAtt": self._get_att,
            "Fn::Sub": self._sub,
            "Fn::Join": self._join,
            "Fn::If": self._if,
            "Fn::Equals": self._equals,
            "Fn::Not": lambda value: not self._truth(value[0]),
            "Fn::And": lambda value: all(self._truth(item) for item in value),
            "Fn::Or": lambda value: any(self._truth(item) for item in value),
            "Fn::Select": self._select,
            "Fn::Split": self._split,
            "Fn::Base64": lambda value: base64.b64encode(self.resolve(value).encode()).decode("ascii"),
        }

    def resolve(self, value: Any) -> Any:
        """Return a value with every intrinsic function in it replaced; AWS::NoValue drops its key or element.

        Raises:
            TemplateError: on an unknown function, parameter, resource or attribute.
        """
        if isinstance(value, list):
            return [item for item in map(self.resolve, value) if item is not _Nothing]
        if not isinstance(value, dict):
            return value
        if function := self._function(value):
            return function(next(iter(value.values())))
        resolved = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not _Nothing}

    def condition(self, name: str) -> bool:
        """Evaluate a condition of the template by its name."""
        if name not in self._conditions:
            message = f"condition {name} is not defined"
            raise TemplateError(message)
        return self._truth(self._conditions[name])

    def _function(self, value: dict[str, Any]) -> Callable[[Any], Any] | None:
        if len(value) != 1:
            return None
        name = next(iter(value))
        if name == "Condition" and not isinstance(value[name], str):
            return None  # a policy statement's Condition block
        if name.startswith("Fn::") and name not in self._functions:
            message = f"{name} is not supported by the local cloud"
            raise TemplateError(message)
        return self._functions.get(name)

    def _truth(self, value: Any) -> bool:
        resolved = self.resolve(value)
        if not isinstance(resolved, bool):
            message = f"a condition must be true or false, not {resolved!r}"
            raise TemplateError(message)
        return resolved

    def _ref(self, name: str) -> Any:
        if name == _NO_VALUE:
            return _Nothing
        if name in self._parameters:
            return self._parameters[name]
        if name in self._created:
            return self._created[name].ref
        message = f"Ref {name}: no such parameter or resource"
        raise TemplateError(message)

    def _get_att(self, value: Any) -> str:
        name, attribute = value.split(".", 1) if isinstance(value, str) else (value[0], self.resolve(value[1]))
        if name not in self._created:
            message = f"Fn::GetAtt {name}.{attribute}: no such resource"
            raise TemplateError(message)
        attributes = self._created[name].attributes
        if attribute not in attributes:
            message = f"Fn::GetAtt {name}.{attribute}: the local cloud does not model this attribute"
            raise TemplateError(message)
        return attributes[attribute]

    def _sub(self, value: Any) -> str:
        text, variables = (value, {}) if isinstance(value, str) else (value[0], self.resolve(value[1]))

        def replace(match: re.Match[str]) -> str:
            literal, name = match.groups()
            if literal:
                return f"${{{name}}}"
            if name in variables:
                return str(variables[name])
            return str(self._get_att(name) if "." in name else self._ref(name))

        return _PLACEHOLDER.sub(replace, text)

    def _join(self, value: Any) -> str:
        delimiter, items = value
        return str(delimiter).join(str(item) for item in self.resolve(items))

    def _if(self, value: Any) -> Any:
        name, then, otherwise = value
        return self.resolve(then if self.condition(name) else otherwise)

    def _equals(self, value: Any) -> bool:
        left, right = (self.resolve(item) for item in value)
        return str(left) == str(right)

    def _select(self, value: Any) -> Any:
        index, items = self.resolve(value[0]), self.resolve(value[1])
        return items[int(index)]

    def _split(self, value: Any) -> list[str]:
        delimiter, text = value
        return str(self.resolve(text)).split(str(delimiter))


class _Nothing:
    """What AWS::NoValue resolves to inside of this module."""


def references(value: Any) -> Iterator[str]:
    """Yield the names that a value refers to by Ref, Fn::GetAtt or Fn::Sub: resources, and parameters among them."""
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        if len(value) == 1:
            yield from _direct_references(*next(iter(value.items())))
        for item in value.values():
            yield from references(item)


def _direct_references(function: str, argument: Any) -> Iterator[str]:
    if function == "Ref":
        yield argument
    elif function == "Fn::GetAtt":
        yield argument.split(".", 1)[0] if isinstance(argument, str) else argument[0]
    elif function == "Fn::Sub":
        text = argument if isinstance(argument, str) else argument[0]
        for literal, name in _PLACEHOLDER.findall(text):
            if not literal:
                yield name.split(".", 1)[0]
