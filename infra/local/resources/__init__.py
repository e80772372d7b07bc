"""One module per kind of resource: how the local cloud makes each CloudFormation type out of moto.

Every property of a resource is either applied, or listed with the reason why it is not: a property that nobody thought
of is an error, so that the template cannot drift away from what the tests run on.
"""
