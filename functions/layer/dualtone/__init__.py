"""The shared package of Dualtone: domain, use cases, adapters. Ships as a Lambda layer and in the agent's wheel."""

__version__ = "0.1.0"
